from __future__ import annotations

import json
from dataclasses import asdict, replace

from adapters.report import ProbeSample, report
from server.adaptation.evaluation import _from_json

PROBE = {"p": [ProbeSample(0, "a", 10, False), ProbeSample(0, "b", 12, False)]}


def test_a_report_survives_storage() -> None:
    made = report("v1", PROBE, {"p": "a"}, kl=0.5, truths={"p": "a"})
    assert _from_json(json.loads(json.dumps({**asdict(made), "labels": {"p": "a"}}))) == made


def test_a_report_of_an_older_server_still_loads() -> None:
    made = report("v1", PROBE, {"p": "a"}, kl=None)
    newer = {"accuracy", "accuracies", "agreements", "view_agreements"}
    stored = {name: value for name, value in asdict(made).items() if name not in newer}
    assert _from_json(stored) == replace(made, agreements={})
