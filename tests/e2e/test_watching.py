"""What an operator sees of a server with a real engine."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.observability.engine_series import WANTED

from .live import LiveServer


def scrape(live: LiveServer) -> dict[str, float]:
    """Samples by name, summed over their labels."""
    headers = {"Authorization": f"Bearer {live.admin_key}"}
    answer = httpx.get(f"{live.base_url}/metrics", headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.mark.engine
async def test_the_engines_own_metrics_are_passed_on(live: LiveServer) -> None:
    _, key = live.make_tenant("watched")
    before = scrape(live)
    answer = await live.ask(key, "What is 12 + 34?")
    after = scrape(live)
    assert before.keys() >= WANTED
    tokens = answer.json()["usage"]["completion_tokens"]
    name = "vllm:generation_tokens_total"
    assert after[name] - before[name] >= tokens
