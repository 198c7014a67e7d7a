"""Our loss against that of TRL's GRPOTrainer on the same tensors.

`trl_losses.json` is written by benchmarks/peers/trl/losses.py in TRL's own environment.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.learner_losses import Difference, differences

pytestmark = pytest.mark.train

LOSSES = Path(__file__).with_name("trl_losses.json")
CASES = [case["name"] for case in json.loads(LOSSES.read_text(encoding="utf-8"))["cases"]]


@pytest.fixture(scope="module")
def found() -> dict[str, Difference]:
    return {difference.case: difference for difference in differences(LOSSES)}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_those_of_trl(found: dict[str, Difference], case: str) -> None:
    assert found[case].loss < 1e-6
    assert found[case].gradient < 1e-7


def test_the_file_says_which_version_wrote_it() -> None:
    versions = json.loads(LOSSES.read_text(encoding="utf-8"))["versions"]
    assert versions["trl"] == "1.16.0"
