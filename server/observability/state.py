"""Metrics of what is known only at the moment of a scrape: log, spool, engines, the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.db.facts import Facts, SwapTotals
from server.observability.engine_series import engine_name

LOG_STATES: Final = ("ok", "spooling", "full")
ACTIVE: Final = ("pending", "running")
OUTCOMES: Final = ("promoted", "rejected", "skipped", "failed", "cancelled")
SWAP_REASONS: Final = ("promoted", "promoted_by_hand", "rolled_back")
STEP_METRICS: Final = (
    "majority_ratio",
    "label_share",
    "view_agreement",
    "vote_entropy",
    "mean_reward",
    "answer_rate",
    "truncated_share",
    "label_accuracy",
    "ground_truth_ratio",
    "num_trained_groups",
    "num_rollouts",
    "mismatch",
    "grad_norm",
    "entropy",
    "sample_s",
    "update_s",
    "load_ms",
)


class LogState(Protocol):
    """How the log of this process is."""

    @property
    def state(self) -> str: ...
    @property
    def num_entries(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def oldest_s(self) -> int: ...
    @property
    def num_refused(self) -> int: ...
    @property
    def num_unlogged(self) -> int: ...


class EngineState(Protocol):
    """An engine as this process sees it."""

    @property
    def url(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def loaded(self) -> set[str]: ...


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(name, said, value=value)


def _counter(name: str, said: str, value: float) -> Metric:
    return CounterMetricFamily(name, said, value=value)


def seat_families(in_use: int, waiting: int) -> Iterable[Metric]:
    """Admission: the seats of this process, and the queue for them."""
    yield _gauge("ttrl_seats_in_use", "Answers that are being made.", in_use)
    yield _gauge("ttrl_queue_waiting", "Requests that wait for a seat.", waiting)


def log_families(log: LogState, num_waiting: int) -> Iterable[Metric]:
    """The log and its spool."""
    states = GaugeMetricFamily(
        "ttrl_log_state", "1 for the state that the log is in.", labels=["state"]
    )
    for state in LOG_STATES:
        states.add_metric([state], float(log.state == state))
    yield states
    yield _gauge("ttrl_log_waiting", "Answers that wait for their commit.", num_waiting)
    yield _gauge("ttrl_spool_entries", "Answers in the spool.", log.num_entries)
    yield _gauge("ttrl_spool_bytes", "What they take on disk.", log.num_bytes)
    yield _gauge("ttrl_spool_oldest_seconds", "Age of the oldest of them.", log.oldest_s)
    yield _counter(
        "ttrl_log_refused", "Answers that the database will never take.", log.num_refused
    )
    yield _counter("ttrl_log_unlogged", "Answers served without being logged.", log.num_unlogged)


def engine_families(engines: Sequence[EngineState], num_failures: int) -> Iterable[Metric]:
    """The engines and what is loaded on them."""
    ready = GaugeMetricFamily("ttrl_engine_ready", "1 when it serves.", labels=["engine"])
    in_flight = GaugeMetricFamily(
        "ttrl_engine_requests", "This process's requests in flight.", labels=["engine"]
    )
    loaded = GaugeMetricFamily(
        "ttrl_adapters_loaded", "Adapters that are loaded.", labels=["engine"]
    )
    for engine in engines:
        label = [engine_name(engine.url)]
        ready.add_metric(label, float(engine.state == "ready"))
        in_flight.add_metric(label, engine.in_flight)
        loaded.add_metric(label, len(engine.loaded))
    yield from (ready, in_flight, loaded)
    yield _gauge("ttrl_adapter_load_failures", "Versions that cannot be loaded now.", num_failures)


def database_families(facts: Facts | None) -> Iterable[Metric]:
    """What the database knows; of one that is away, only that."""
    yield _gauge("ttrl_database_up", "1 when the database answers.", float(facts is not None))
    tenants = GaugeMetricFamily("ttrl_tenants", "Living tenants.")
    active = GaugeMetricFamily("ttrl_cycles_active", "Cycles by status.", labels=["status"])
    ended = CounterMetricFamily("ttrl_cycles", "Cycles that have ended.", labels=["outcome"])
    swaps = CounterMetricFamily("ttrl_swaps", "Moves of pointers.", labels=["reason"])
    load = CounterMetricFamily(
        "ttrl_swap_load_seconds", "Time that their loading took.", labels=["reason"]
    )
    flip = CounterMetricFamily(
        "ttrl_swap_flip_seconds", "Time that their flips took.", labels=["reason"]
    )
    newest = GaugeMetricFamily(
        "ttrl_newest_step", "Metrics of the newest step of any cycle.", labels=["metric"]
    )
    if facts is not None:
        tenants.add_metric([], facts.num_tenants)
        for status in ACTIVE:
            active.add_metric([status], facts.cycles.get(status, 0))
        for outcome in OUTCOMES:
            ended.add_metric([outcome], facts.cycles.get(outcome, 0))
        for reason in SWAP_REASONS:
            totals = facts.swaps.get(reason, SwapTotals(0, 0.0, 0.0))
            swaps.add_metric([reason], totals.count)
            load.add_metric([reason], totals.load_s)
            flip.add_metric([reason], totals.flip_s)
        for metric in STEP_METRICS:
            if isinstance(value := facts.newest_step.get(metric), (int, float)):
                newest.add_metric([metric], value)
    yield from (tenants, active, ended, swaps, load, flip, newest)
