"""The engines' own metrics, passed on: a short list, without the labels that grow.

vLLM names adapters in labels and never forgets one, so the series of an engine grow with every
version; what is passed on here is as many as there are engines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

MAX_LINES: Final = 1_000  # of these names; an engine has a few
REASON: Final = "finished_reason"
REASONS: Final = frozenset({"stop", "length", "abort", "error", "repetition"})

GAUGES: Final = {
    "vllm:num_requests_running": "Requests that an engine works on.",
    "vllm:num_requests_waiting": "Requests that wait in an engine.",
    "vllm:kv_cache_usage_perc": "Share of an engine's KV cache that is in use.",
}
COUNTERS: Final = {
    "vllm:num_preemptions": "Requests that an engine put off for want of KV cache.",
    "vllm:prompt_tokens": "Prompt tokens that an engine has read.",
    "vllm:generation_tokens": "Tokens that an engine has generated.",
    "vllm:prefix_cache_queries": "Tokens that were looked for in an engine's prefix cache.",
    "vllm:prefix_cache_hits": "Tokens that were found there.",
}
BY_REASON: Final = {"vllm:request_success": "Requests that an engine has finished."}

WANTED: Final = frozenset([*GAUGES, *(f"{name}_total" for name in (*COUNTERS, *BY_REASON))])


def engine_name(url: str) -> str:
    """An engine's label: host and port, without what else may stand in its URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def families(texts: Mapping[str, str]) -> list[Metric]:
    """The families that are passed on, from each engine's text; a text that makes no sense is left
    out.
    """
    gauges = {
        name: GaugeMetricFamily(name, said, labels=["engine"]) for name, said in GAUGES.items()
    }
    counters = {
        name: CounterMetricFamily(name, said, labels=["engine"]) for name, said in COUNTERS.items()
    }
    reasons = {
        name: CounterMetricFamily(name, said, labels=["engine", REASON])
        for name, said in BY_REASON.items()
    }
    for engine, text in texts.items():
        try:
            sums = _sums(text)
        except (ValueError, LookupError):
            continue
        for (name, reason), value in sorted(sums.items()):
            if name in gauges:
                gauges[name].add_metric([engine], value)
            elif (plain := name.removesuffix("_total")) in counters:
                counters[plain].add_metric([engine], value)
            else:
                reasons[plain].add_metric([engine, reason], value)
    return [*gauges.values(), *counters.values(), *reasons.values()]


def _sums(text: str) -> dict[tuple[str, str], float]:
    """By name and reason; what differs only in other labels is added up, shares apart."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(_wanted_lines(text)):
        for sample in family.samples:
            reason = ""
            if sample.name.removesuffix("_total") in BY_REASON:
                given = sample.labels.get(REASON, "")
                reason = given if given in REASONS else "other"
            key = (sample.name, reason)
            if sample.name.endswith("_perc"):
                sums[key] = max(sums[key], sample.value)
            else:
                sums[key] += sample.value
    return sums


def _wanted_lines(text: str) -> str:
    """Only these are parsed: an engine has thousands of lines, and the parser is slow."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("vllm:") and line.partition("{")[0].partition(" ")[0] in WANTED:
            lines.append(line)
            if len(lines) == MAX_LINES:
                break
    return "\n".join(lines) + "\n"
