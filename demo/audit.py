"""What the requests were promised, checked against the server's own history and log: nothing
fails, the live version answers, and each answered request is in the log exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ttrl_client.types import Query, Swap

from demo.asking import Exchange

# A web process may answer by the version before for as long as it caches the pointer (half a
# second, `tenant_cache_s`) after another process moved it, and the row's time is just before the
# commit.
GRACE = timedelta(seconds=1)
MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Requests:
    """Counts of requests over all tenants; `examples` says in words what went wrong."""

    total: int
    while_cycles_ran: int
    streamed: int
    opted_out: int
    failed: int
    wrong_version: int
    not_logged: int
    logged_against_wish: int
    examples: tuple[str, ...] = ()


def audit(
    exchanges: Sequence[Exchange],
    swaps: Mapping[str, Sequence[Swap]],
    logged: Mapping[str, Sequence[Query]],
    cycles_ran: tuple[datetime, datetime],
) -> Requests:
    """Judge all requests. `swaps` and `logged` are the whole of each tenant's."""
    rows = {tenant: _by_id(queries) for tenant, queries in logged.items()}
    failed = [exchange for exchange in exchanges if exchange.problem is not None]
    answered = [exchange for exchange in exchanges if exchange.problem is None]
    wrong = [
        exchange
        for exchange in answered
        if not _is_from_live(exchange, swaps[exchange.tenant])
        or not _is_logged_as_answered(exchange, rows[exchange.tenant])
    ]
    kept = [exchange for exchange in answered if exchange.stored]
    missing = [exchange for exchange in kept if _times_logged(exchange, rows) != 1]
    opted_out = [exchange for exchange in exchanges if not exchange.stored]
    unwished = [exchange for exchange in opted_out if _times_logged(exchange, rows) != 0]
    began, ended = cycles_ran
    return Requests(
        total=len(exchanges),
        while_cycles_ran=sum(began <= exchange.started_at < ended for exchange in exchanges),
        streamed=sum(exchange.streamed for exchange in exchanges),
        opted_out=len(opted_out),
        failed=len(failed),
        wrong_version=len(wrong),
        not_logged=len(missing),
        logged_against_wish=len(unwished),
        examples=(
            *_examples("failed", failed),
            *_examples("wrong version", wrong),
            *_examples("not logged once", missing),
            *_examples("logged against its wish", unwished),
        ),
    )


def live_between(swaps: Sequence[Swap], began: datetime, ended: datetime) -> set[int]:
    """The versions that were live at some moment of a span, for a tenant with this history."""
    live: set[int] = set()
    version, since = 0, datetime.min.replace(tzinfo=began.tzinfo)
    for swap in sorted(swaps, key=lambda swap: swap.created_at):
        if since <= ended and swap.created_at >= began:
            live.add(version)
        version, since = swap.to_version, swap.created_at
    if since <= ended:
        live.add(version)
    return live


def _is_from_live(exchange: Exchange, swaps: Sequence[Swap]) -> bool:
    versions = live_between(swaps, exchange.started_at - GRACE, exchange.ended_at)
    return exchange.adapter in {f"{exchange.tenant}--v{version}" for version in versions}


def _is_logged_as_answered(exchange: Exchange, rows: Mapping[str, list[Query]]) -> bool:
    """Whether the log names the version that the response named, where there is a row."""
    return all(
        f"{exchange.tenant}--v{row.adapter_version}" == exchange.adapter
        for row in rows.get(exchange.request_id or "", [])
    )


def _times_logged(exchange: Exchange, rows: Mapping[str, Mapping[str, list[Query]]]) -> int:
    """Rows with the request's id, in anybody's log; a row in another tenant's counts as two."""
    request_id = exchange.request_id or ""
    return sum(
        len(of_tenant.get(request_id, [])) * (1 if tenant == exchange.tenant else 2)
        for tenant, of_tenant in rows.items()
    )


def _by_id(queries: Sequence[Query]) -> dict[str, list[Query]]:
    found: dict[str, list[Query]] = {}
    for query in queries:
        found.setdefault(query.id, []).append(query)
    return found


def _examples(what: str, exchanges: Sequence[Exchange]) -> tuple[str, ...]:
    """The most frequent problems in words."""
    counts = Counter(
        f"{what}: {exchange.tenant}: {exchange.problem or _named(exchange)}"
        for exchange in exchanges
    )
    return tuple(f"{text} (x{count})" for text, count in counts.most_common(MAX_EXAMPLES))


def _named(exchange: Exchange) -> str:
    return f"answered as {exchange.adapter} at {exchange.started_at:%H:%M:%S}"
