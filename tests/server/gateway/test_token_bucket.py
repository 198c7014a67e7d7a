from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client.types import Limits

from server.errors import Overloaded
from server.gateway.quota import Quotas, duration
from server.gateway.token_bucket import TokenBucket


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=60),
)
def test_no_minute_holds_more_than_twice_the_limit_and_all_time_no_more_than_the_rate(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now, taken = TokenBucket(per_minute, 0.0), 0.0, list[tuple[float, int]]()
    for pause, amount in steps:
        now += pause
        if amount <= per_minute and bucket.wait_s(amount, now) == 0:
            bucket.take(amount, now)
            taken.append((now, amount))
    assert sum(amount for _, amount in taken) <= per_minute * (1 + now / 60) + 1e-6
    for start, _ in taken:
        within = sum(amount for at, amount in taken if start <= at < start + 60)
        assert within <= 2 * per_minute + 1e-6


@given(per_minute=st.integers(1, 1000), used=st.integers(0, 3000), wanted=st.integers(1, 3000))
def test_who_waits_as_long_as_told_is_let_in(per_minute: int, used: int, wanted: int) -> None:
    bucket = TokenBucket(per_minute, 10.0)
    bucket.take(used, 10.0)
    wait_s = bucket.wait_s(wanted, 10.0)
    assert bucket.wait_s(wanted, 10.0 + wait_s + 1e-6) == 0


def test_it_fills_steadily_and_never_over_the_brim() -> None:
    bucket = TokenBucket(60, 0.0)
    bucket.take(60, 0.0)
    assert (bucket.remaining(0.0), bucket.reset_s(0.0)) == (0, 60.0)
    assert (bucket.remaining(10.5), bucket.reset_s(10.5)) == (10, 49.5)
    assert bucket.remaining(1e6) == 60
    bucket.give_back(30, 1e6)
    assert bucket.remaining(1e6) == 60


def test_what_was_used_up_stays_used_up_under_another_limit() -> None:
    bucket = TokenBucket(60, 0.0)
    bucket.take(50, 0.0)
    bucket.resize(100, 0.0)
    assert bucket.remaining(0.0) == 50
    bucket.resize(20, 0.0)
    assert bucket.remaining(0.0) == 0


def test_a_clock_that_stands_still_fills_nothing() -> None:
    bucket = TokenBucket(60, 5.0)
    bucket.take(1, 5.0)
    assert bucket.remaining(4.0) == 59


def test_a_quota_counts_requests_and_tokens_and_says_what_is_left() -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=600)
    quota = Quotas(1).of(1, limits, 0.0)
    assert quota is not None
    quota.take_request(0.0)
    quota.take_tokens(100, 0.0)
    assert quota.headers(0.0) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
    }
    quota.take_request(0.0)
    with pytest.raises(Overloaded) as refused:
        quota.take_request(0.0)
    assert refused.value.retry_after_s == 30
    quota.settle(100, 700, 0.0)
    with pytest.raises(Overloaded) as refused:
        quota.take_tokens(1, 5.0)
    assert "tokens per minute" in refused.value.message


def test_a_request_larger_than_the_limit_goes_when_the_bucket_is_full() -> None:
    quota = Quotas(1).of(1, Limits(tokens_per_minute=10), 0.0)
    assert quota is not None
    quota.take_tokens(1000, 0.0)
    with pytest.raises(Overloaded):
        quota.take_tokens(1000, 60.0)


def test_tenants_have_quotas_of_their_own_that_follow_their_settings() -> None:
    quotas, one = Quotas(2), Limits(requests_per_minute=10)
    first, second = quotas.of(1, one, 0.0), quotas.of(2, one, 0.0)
    assert first is not second
    assert quotas.of(1, Limits(requests_per_minute=10), 0.0) is first
    assert quotas.of(1, Limits(requests_per_minute=20), 0.0) is first
    assert first is not None
    assert first.headers(0.0)["x-ratelimit-limit-requests"] == "10"
    assert quotas.of(3, Limits(), 0.0) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (6.5, "6.5s"), (63, "1m3s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
