from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.db.facts import Facts, SwapTotals
from server.observability import engine_series
from server.observability.metrics import Metrics
from server.observability.requests import LEFT, ROUTES, Observed, route_of
from server.observability.state import STEP_METRICS, database_families
from tests.fakes.vllm import Fault

from .conftest import ADMIN_KEY, METRICS_KEY, Watched, bearer

ROOT = Path(__file__).resolve().parents[3]

VLLM_SAYS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 2.0
vllm:num_requests_running{engine="1",model_name="base"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="base"} 0.75
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="base"} 40.0
vllm:generation_tokens_created{engine="0",model_name="base"} 1.7e+09
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="base"} 5.0
vllm:request_success_total{engine="0",finished_reason="news",model_name="base"} 1.0
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="8",running_lora_adapters="t1-acme--v1",waiting_lora_adapters=""} 1
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="base"} 7.0
"""


async def test_an_answer_is_counted(app: Watched) -> None:
    assert (await app.ask()).status_code == 200
    await app.parts.recorder.flush()
    found = await app.scrape()
    assert found["ttrl_requests_total", ("chat", "200")] == 1
    assert found["ttrl_request_seconds_count", ("chat",)] == 1
    assert found["ttrl_first_token_seconds_count", ("chat",)] == 0
    assert found["ttrl_tenant_requests_total", ("acme",)] == 1
    assert found["ttrl_tokens_total", ("prompt", "acme")] > 0
    assert found["ttrl_tokens_total", ("completion", "acme")] > 0
    assert found["ttrl_log_wait_seconds_count", ()] == 1
    assert found["ttrl_logged_queries_total", ("eligible",)] == 1
    assert found["ttrl_log_commit_seconds_count", ()] == 1
    assert found["ttrl_log_committed_entries_total", ()] == 1
    assert found["ttrl_log_state", ("ok",)] == 1
    assert found["ttrl_requests_in_flight", ()] == 1  # the scrape itself
    assert found["process_resident_memory_bytes", ()] > 0


async def test_a_streams_first_event_is_timed(app: Watched) -> None:
    assert (await app.ask(stream=True)).status_code == 200
    found = await app.scrape()
    assert found["ttrl_first_token_seconds_count", ("chat",)] == 1
    assert found["ttrl_streams_failed_total", ("chat",)] == 0


async def test_a_stream_that_breaks_is_counted_as_failed(app: Watched) -> None:
    app.fake.script("/v1/chat/completions", Fault(error_after=2))
    assert (await app.ask(stream=True)).status_code == 200
    found = await app.scrape()
    assert found["ttrl_streams_failed_total", ("chat",)] == 1


async def test_refusals_are_counted_by_status_and_named(app: Watched) -> None:
    answer = await app.ask(model="nothing")
    unknown = await app.http.get("/v1/%0Aevil")
    found = await app.scrape()
    assert found["ttrl_requests_total", ("chat", "404")] == 1
    assert found["ttrl_requests_total", ("unknown", "404")] == 1
    assert found["ttrl_tenant_requests_total", ("acme",)] == 1
    ids = [answer.headers["x-request-id"], unknown.headers["x-request-id"]]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


async def test_what_is_known_of_engines_and_database_is_there(app: Watched) -> None:
    app.fake.metrics = VLLM_SAYS
    found = await app.scrape()
    engine = app.parts.pool.engines[0].url.removeprefix("http://")
    assert found["ttrl_engine_ready", (engine,)] == 1
    assert found["ttrl_database_up", ()] == 1
    assert found["ttrl_tenants", ()] == 1
    assert found["ttrl_cycles_total", ("promoted",)] == 0
    assert found["ttrl_swaps_total", ("rolled_back",)] == 0
    assert found["vllm:num_requests_running", (engine,)] == 5


@pytest.mark.parametrize(("key", "status"), [(METRICS_KEY, 200), (ADMIN_KEY, 200), ("x", 401)])
async def test_metrics_want_a_key(app: Watched, key: str, status: int) -> None:
    assert (await app.http.get("/metrics", headers=bearer(key))).status_code == status


async def test_the_metrics_key_opens_nothing_else_and_a_tenants_key_not_that(app: Watched) -> None:
    status = await app.http.get("/admin/v1/status", headers=bearer(METRICS_KEY))
    metrics = await app.http.get("/metrics", headers=bearer(app.key))
    assert (status.status_code, metrics.status_code) == (401, 401)


def finished(tenant: str) -> Observed:
    seen = Observed("chat")
    seen.status, seen.prompt_tokens, seen.completion_tokens = 200, 3, 5
    seen.let_in(1, tenant)
    return seen


def test_ten_thousand_tenants_make_no_more_series_than_the_bound() -> None:
    metrics = Metrics(max_tenants=10)
    for number in range(10_000):
        metrics.finished(finished(f"tenant-{number}"), 0.1)
    requests = next(m for m in metrics.collect() if m.name == "ttrl_tenant_requests")
    by_tenant = {sample.labels["tenant"]: sample.value for sample in requests.samples}
    assert len(by_tenant) == 11
    assert (by_tenant["tenant-0"], by_tenant["other"]) == (1, 9_990)


def test_a_tenant_called_other_gets_no_series_of_its_own() -> None:
    metrics = Metrics(max_tenants=10)
    metrics.finished(finished("other"), 0.1)
    requests = next(m for m in metrics.collect() if m.name == "ttrl_tenant_requests")
    assert [sample.value for sample in requests.samples] == [1]


@pytest.mark.parametrize(
    "path", ["/v1/models/a\nb", "/admin/v1/tenants/x", "/v1/chat/completions/", "", "/x" * 999]
)
def test_a_route_is_from_a_fixed_set(path: str) -> None:
    assert route_of(path) in ROUTES


async def test_a_client_that_left_has_a_status_of_its_own(app: Watched) -> None:
    seen = Observed("chat")
    seen.has_left, seen.status = True, LEFT
    app.parts.metrics.finished(seen, 0.1)
    assert (await app.scrape())["ttrl_requests_total", ("chat", "499")] == 1


def test_an_engines_series_lose_the_labels_that_grow() -> None:
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in engine_series.families(
            {"a:1": VLLM_SAYS, "b:2": "vllm:num_requests_running {"}
        )
        for sample in family.samples
    }
    assert found == {
        ("vllm:num_requests_running", "a:1"): 5,
        ("vllm:kv_cache_usage_perc", "a:1"): 0.75,
        ("vllm:generation_tokens_total", "a:1"): 40,
        ("vllm:request_success_total", "a:1", "stop"): 5,
        ("vllm:request_success_total", "a:1", "other"): 1,
    }


def test_an_engines_label_holds_no_password() -> None:
    assert engine_series.engine_name("http://user:secret@host:8100/x") == "host:8100"


def test_swaps_and_steps_come_from_the_database() -> None:
    step = dict.fromkeys(STEP_METRICS, 0.5) | {"invented": 1.0}
    facts = Facts(2, {"running": 1, "failed": 3}, {"rolled_back": SwapTotals(4, 2.0, 0.1)}, step)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in database_families(facts)
        for sample in family.samples
    }
    assert samples["ttrl_cycles_active", "running"] == 1
    assert samples["ttrl_cycles_total", "failed"] == 3
    assert samples["ttrl_swaps_total", "rolled_back"] == 4
    assert samples["ttrl_swap_load_seconds_total", "rolled_back"] == 2
    assert samples["ttrl_newest_step", "majority_ratio"] == 0.5
    assert ("ttrl_newest_step", "invented") not in samples


async def test_every_metric_is_described_and_nothing_else(app: Watched) -> None:
    """Name, type and labels of the table in docs/operations.md are those of the code."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `((?:ttrl_|vllm:)\S+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    described = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    app.fake.metrics = "\n".join(f"{name} 1" for name in sorted(engine_series.WANTED)) + "\n"
    await app.ask()
    answer = (await app.http.get("/metrics", headers=bearer(ADMIN_KEY))).text
    served = {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(answer)
        if not family.name.startswith("process_")
    }
    assert served.pop("ttrl_newest_step") == ("gauge", set())  # there is no step yet
    assert described.pop("ttrl_newest_step") == ("gauge", {"metric"})
    assert served == described


def test_the_dashboard_shows_only_what_there_is() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    described = set(re.findall(r"^\| `((?:ttrl_|vllm:)\S+)` \| \w+ \|", text, re.MULTILINE))
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    shown = {
        name.removesuffix("_bucket")
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:ttrl_|vllm:)\w+", target["expr"])
    }
    assert len(shown) > 10
    assert shown <= described
