"""The cache in front of the database: never old while it answers, never empty while it does not."""

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from server.db.refreshing import RefreshingCache
from server.errors import Unauthorized, Unavailable

AWAY = OperationalError("SELECT 1", {}, Exception("away"))


class Source:
    """What is read: counts, waits or fails when told to."""

    def __init__(self) -> None:
        self.num_reads = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.time = 0.0
        self.cache = RefreshingCache(self.read, fresh_s=10.0, outage_s=100.0, now=lambda: self.time)

    async def read(self, key: str) -> str:
        self.num_reads += 1
        value = f"{key}{self.num_reads}"
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return value


async def settle() -> None:
    await asyncio.sleep(0.02)


@pytest.fixture
async def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr("server.db.refreshing.DELAY_S", 0.0)
    return Source()


async def test_a_young_value_costs_no_read(source: Source):
    assert [await source.cache.get("k") for _ in range(3)] == ["k1"] * 3
    assert source.num_reads == 1


async def test_an_ageing_value_is_served_and_read_again_beside_it(source: Source):
    await source.cache.get("k")
    source.time = 6.0
    source.open.clear()
    assert await source.cache.get("k") == "k1"  # though the read hangs
    assert await source.cache.get("k") == "k1"
    source.open.set()
    await settle()
    assert source.num_reads == 2
    assert await source.cache.get("k") == "k2"


async def test_an_old_value_is_never_served_while_the_database_answers(source: Source):
    await source.cache.get("k")
    source.time = 10.0
    assert await source.cache.get("k") == "k2"


async def test_many_askers_share_one_read(source: Source):
    source.open.clear()
    askers = [asyncio.create_task(source.cache.get("k")) for _ in range(5)]
    await settle()
    askers[0].cancel()  # who leaves takes nothing from the others
    source.open.set()
    assert await asyncio.gather(*askers[1:]) == ["k1"] * 4
    assert source.num_reads == 1


async def test_an_outage_is_bridged_up_to_its_bound(source: Source):
    await source.cache.get("k")
    source.error = AWAY
    source.time = 99.0
    assert await source.cache.get("k") == "k1"
    source.time = 100.0
    with pytest.raises(OperationalError):
        await source.cache.get("k")
    with pytest.raises(OperationalError):
        await source.cache.get("unknown")
    source.error = None
    assert (await source.cache.get("k")).startswith("k")


async def test_a_refused_key_is_forgotten_at_once(source: Source):
    await source.cache.get("k")
    source.error = Unauthorized("revoked")
    source.time = 6.0
    assert await source.cache.get("k") == "k1"
    await settle()
    with pytest.raises(Unauthorized):
        await source.cache.get("k")
    source.error = AWAY
    with pytest.raises(OperationalError):  # and an outage does not bring it back
        await source.cache.get("k")


async def test_what_was_read_before_a_clearing_is_not_kept(source: Source):
    source.open.clear()
    before = asyncio.create_task(source.cache.get("k"))
    await settle()
    source.cache.clear()
    source.open.set()
    assert await before == "k1"
    assert await source.cache.get("k") == "k2"


async def test_a_database_that_hangs_is_bridged_too(
    source: Source, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("server.db.refreshing.PATIENCE_S", 0.01)
    await source.cache.get("k")
    source.time = 50.0
    source.open.clear()
    assert await source.cache.get("k") == "k1"
    source.time = 60.0  # the read has hung for longer than anyone waits
    assert await asyncio.wait_for(source.cache.get("k"), 0.5) == "k1"
    source.open.set()
    await settle()
    source.time = 61.0
    assert await source.cache.get("k") == "k3"


async def test_a_read_that_hangs_is_given_up(source: Source, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.db.refreshing.READ_S", 0.02)
    source.open.clear()
    with pytest.raises(Unavailable):
        await source.cache.get("k")
    hanging, source.open = source.open, asyncio.Event()
    source.open.set()
    source.time = 1.0
    assert await source.cache.get("k") == "k2"  # though the first read has never ended
    hanging.set()
    await settle()
    assert await source.cache.get("k") == "k2"


async def test_a_read_that_hangs_does_not_keep_an_old_value_alive(
    source: Source, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("server.db.refreshing.PATIENCE_S", 0.01)
    await source.cache.get("k")
    source.open.clear()
    source.time = 20.0
    assert await source.cache.get("k") == "k1"
    source.open = asyncio.Event()
    source.open.set()
    source.error = Unauthorized("revoked meanwhile")
    source.time = 30.0
    with pytest.raises(Unauthorized):
        await source.cache.get("k")


async def test_keys_that_are_made_up_do_not_pile_up(
    source: Source, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("server.db.refreshing.MAX_READING", 3)
    await source.cache.get("known")
    source.open.clear()
    askers = [asyncio.create_task(source.cache.get(f"made up {n}")) for n in range(3)]
    await settle()
    with pytest.raises(Unavailable):
        await source.cache.get("one more")
    assert await source.cache.get("known") == "known1"
    source.time = 50.0
    assert await source.cache.get("known") == "known1"  # it cannot be read, and serves on
    source.open.set()
    await asyncio.gather(*askers)
