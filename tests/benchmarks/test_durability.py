"""The short version of `make bench-durability`: the real web process under load, killed, with its
database stopped, and with its disk full.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from benchmarks.durability import Outcome, full_disk, kills, outage
from benchmarks.durable_load import Heard, compare
from benchmarks.durable_web import WebProcess, web_process
from benchmarks.outages import Store, frozen, no_file_grows, sqlite_store
from benchmarks.serving import serving

RATE = 30.0
pytestmark = pytest.mark.timeout(600)

Serve = Callable[[Store], AbstractAsyncContextManager[WebProcess]]


@pytest.fixture(scope="module")
def engine() -> Generator[str]:
    with serving("benchmarks.stub_engine") as url:
        yield url


@pytest.fixture
def serve(engine: str, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serve(store: Store) -> AsyncGenerator[WebProcess]:
        async with web_process(tmp_path / "data", engine, store) as web:
            yield web

    return serve


def postgres_store(url: str, socket_dir: str) -> Store:
    """A database on the test session's server, which can be stopped by signal."""
    pid = int((Path(socket_dir) / "postmaster.pid").read_text().split()[0])
    return Store("postgresql", url, {"frozen": lambda: frozen(pid)})


def check_kept(outcome: Outcome) -> None:
    """Something was received, and all of it is in the log, once, in order."""
    kept = outcome.kept
    assert kept.num_received > 5
    assert (kept.num_missing, kept.num_twice, kept.num_out_of_order) == (0, 0, 0)


async def test_on_sqlite_nothing_is_lost_by_a_kill_or_a_full_disk_which_is_told(
    serve: Serve, tmp_path: Path
) -> None:
    store = sqlite_store(tmp_path / "ttrl.db")
    async with serve(store) as web:
        check_kept(await kills(web, store, num=2, rate=RATE))
        outcome = await full_disk(web, partial(no_file_grows, web.pid), seconds=2, rate=RATE)
    check_kept(outcome)
    assert any(state.startswith("503") and state.endswith("full") for state in outcome.states)


@pytest.mark.postgres
async def test_nothing_fails_or_is_lost_while_postgresql_does_not_answer(
    serve: Serve, postgres_url: str, postgres_dir: str
) -> None:
    store = postgres_store(postgres_url, postgres_dir)
    async with serve(store) as web:
        outcome = await outage(web, store.outages["frozen"], seconds=3, rate=RATE)
    check_kept(outcome)
    assert (outcome.num_refused, outcome.num_cut) == (0, 0)
    assert "200 away spooling" in outcome.states


def test_the_comparison_sees_what_is_missing_twice_and_out_of_order() -> None:
    heard = Heard(received={"1-1": "a", "1-2": "b", "2-1": "c"})
    rows = [("b", "1-2"), ("a", "1-1"), ("d", "1-2")]
    kept = compare(heard, rows)
    assert (kept.num_missing, kept.num_twice, kept.num_out_of_order) == (1, 1, 1)
