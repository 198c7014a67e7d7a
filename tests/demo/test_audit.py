"""Each request is compared with the server's history and log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ttrl_client.types import Query, Swap

from demo.asking import Exchange
from demo.audit import Requests, audit, live_between
from tests.demo.conftest import at, exchange_of, query_of, swap_of

HISTORY = (swap_of("adder", 1, 100), swap_of("adder", 0, 200), swap_of("adder", 1, 300))


def _audit(
    exchanges: Sequence[Exchange],
    logged: Sequence[Query] = (),
    *,
    swaps: Sequence[Swap] = (),
    others: Sequence[Query] = (),
) -> Requests:
    return audit(
        exchanges,
        {"adder": swaps, "novice": []},
        {"adder": logged, "novice": others},
        (at(0), at(60)),
    )


@pytest.mark.parametrize(
    ("began", "ended", "versions"),
    [
        (10, 20, {0}),
        (90, 110, {0, 1}),
        (110, 120, {1}),
        (190, 310, {0, 1}),
        (210, 220, {0}),
        (400, 500, {1}),
    ],
)
def test_live_versions_of_a_span(began: float, ended: float, versions: set[int]) -> None:
    assert live_between(HISTORY[::-1], at(began), at(ended)) == versions


def test_a_request_that_is_logged_once_is_fine() -> None:
    found = _audit([exchange_of()], [query_of("chatcmpl-1")])
    assert (found.total, found.while_cycles_ran) == (1, 1)
    assert (found.failed, found.wrong_version, found.not_logged) == (0, 0, 0)
    assert found.examples == ()


@pytest.mark.parametrize("logged", [[], [query_of("chatcmpl-1")] * 2], ids=["never", "twice"])
def test_a_request_must_be_logged_exactly_once(logged: list[Query]) -> None:
    found = _audit([exchange_of()], logged)
    assert found.not_logged == 1
    assert found.examples == ("not logged once: adder: answered as adder--v0 at 12:00:10 (x1)",)


def test_a_row_in_another_tenants_log_does_not_count() -> None:
    assert _audit([exchange_of()], others=[query_of("chatcmpl-1")]).not_logged == 1


def test_an_opted_out_request_must_not_be_logged() -> None:
    exchange = exchange_of(stored=False)
    assert _audit([exchange]).logged_against_wish == 0
    found = _audit([exchange], [query_of("chatcmpl-1")])
    assert (found.opted_out, found.logged_against_wish, found.not_logged) == (1, 1, 0)


@pytest.mark.parametrize("adapter", ["adder--v1", "novice--v0", "identity"])
def test_only_a_live_version_of_the_tenant_may_answer(adapter: str) -> None:
    found = _audit([exchange_of(adapter=adapter)], [query_of("chatcmpl-1")])
    assert found.wrong_version == 1


def test_a_request_may_end_on_the_version_that_it_began_with() -> None:
    exchange = exchange_of(started_at=at(99), ended_at=at(120))
    assert _audit([exchange], [query_of("chatcmpl-1")], swaps=HISTORY[:1]).wrong_version == 0


def test_the_version_before_may_answer_while_the_pointer_is_cached() -> None:
    logged = [query_of("chatcmpl-1")]
    soon = exchange_of(started_at=at(100.4), ended_at=at(101))
    late = exchange_of(started_at=at(102), ended_at=at(103))
    assert _audit([soon], logged, swaps=HISTORY[:1]).wrong_version == 0
    assert _audit([late], logged, swaps=HISTORY[:1]).wrong_version == 1


def test_the_log_must_name_the_version_that_the_response_named() -> None:
    assert _audit([exchange_of()], [query_of("chatcmpl-1", version=1)]).wrong_version == 1


def test_a_failed_request_is_counted_as_failed_only() -> None:
    found = _audit([exchange_of(problem="an empty answer", adapter=None)])
    assert (found.failed, found.wrong_version, found.not_logged) == (1, 0, 0)
    assert found.examples == ("failed: adder: an empty answer (x1)",)


def test_only_requests_between_trigger_and_end_count_as_sent_while_cycles_ran() -> None:
    started = [exchange_of(started_at=at(second)) for second in (-1, 0, 59, 60)]
    assert _audit(started).while_cycles_ran == 2
