"""The recorder on a real PostgreSQL whose network hangs, breaks, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import select, text

from server.db.engine import Database
from server.db.models import Query, Tenant
from server.gateway.recorder import Recorder
from server.spool.backlog import Backlog
from tests.fakes.admin import AdminWorld
from tests.server.admin.conftest import client_of
from tests.server.gateway.conftest import ADDER, NOVICE, chat, running
from tests.server.gateway.test_recorder import NOW, entry
from tests.server.gateway.test_spooling import left_in, until

pytestmark = pytest.mark.postgres


class Network:
    """Carries bytes to PostgreSQL's socket, unless it hangs or is down."""

    def __init__(self, socket_path: str) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.is_down = False
        self.stalled = asyncio.Event()  # something was sent while it hung
        self._socket_path = socket_path
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """The port to connect to."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._socket_path)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if not self.flows.is_set():
                    self.stalled.set()
                    await self.flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def go_down(self) -> None:
        """Break all connections, and refuse new ones."""
        self.is_down = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        assert self._server is not None
        self.flows.set()
        self.go_down()
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def network(postgres_dir: str) -> AsyncIterator[Network]:
    network = Network(f"{postgres_dir}/.s.PGSQL.5432")
    yield network
    await network.stop()


@pytest.fixture
async def database(network: Network, migrated_postgres_url: str) -> AsyncIterator[Database]:
    name = migrated_postgres_url.split("@/")[1].split("?")[0]
    port = await network.start()
    database = Database(f"postgresql+asyncpg://postgres@127.0.0.1:{port}/{name}?ssl=disable")
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
    yield database
    await database.close()


def recorder_on(database: Database, root: Path, *, timeout_s: float = 10) -> Recorder:
    backlog = Backlog(root, max_bytes=2**20)
    return Recorder(database, backlog, queue_size=10, timeout_s=timeout_s, patience_s=0.05)


async def stored_in_order(database: Database) -> list[str]:
    async with database.transaction(write=False) as session:
        return list(await session.scalars(select(Query.id).order_by(text("ctid"))))


async def test_a_network_that_hangs(network: Network, database: Database, tmp_path: Path):
    recorder = recorder_on(database, tmp_path)
    await recorder.start()
    await recorder.record(entry("a"))
    await until(lambda: recorder.status.state == "ok")  # a slow machine may have spooled it
    network.flows.clear()
    for one in "bc":
        await recorder.record(entry(one))
    assert recorder.status.num_entries == 2
    await network.stalled.wait()
    network.flows.set()
    await until(lambda: recorder.status.state == "ok")
    await recorder.record(entry("d"))
    await recorder.stop()
    assert await stored_in_order(database) == list("abcd")
    assert left_in(tmp_path) == []


async def test_a_network_that_hangs_for_longer_than_a_transaction_may(
    network: Network, database: Database, tmp_path: Path
):
    recorder = recorder_on(database, tmp_path, timeout_s=0.5)
    await recorder.start()
    network.flows.clear()
    for one in "abc":
        await recorder.record(entry(one))
    await until(lambda: recorder._transactions.last_error == "TimeoutError")
    network.flows.set()
    await until(lambda: recorder.status.state == "ok")
    await recorder.stop()
    assert await stored_in_order(database) == list("abc")


async def test_a_network_that_breaks(network: Network, database: Database, tmp_path: Path):
    recorder = recorder_on(database, tmp_path)
    await recorder.start()
    await recorder.record(entry("a"))
    await until(lambda: recorder.status.state == "ok")  # a slow machine may have spooled it
    network.go_down()
    for one in "bcd":
        await recorder.record(entry(one))
    assert recorder.status.num_entries == 3
    network.is_down = False
    await until(lambda: recorder.status.state == "ok")
    await recorder.record(entry("e"))
    await recorder.stop()
    assert await stored_in_order(database) == list("abcde")


REFUSALS = pytest.mark.parametrize(
    "refusal", [asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError]
)


@asynccontextmanager
async def refusing(database: Database, refusal: type[Exception]) -> AsyncGenerator[None]:
    """PostgreSQL takes no connection, for this reason; none is left of those before."""

    async def refuse(*_args: object, **_options: object) -> None:
        raise refusal("not now")

    await database.engine.dispose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg, "connect", refuse)
        yield


def is_told_to_come_again(response: httpx.Response) -> bool:
    return response.status_code == 503 and int(response.headers["Retry-After"]) > 0


@REFUSALS
async def test_a_server_that_takes_no_connections_is_away_for_the_gateway(
    refusal: type[Exception], migrated_postgres_url: str, tmp_path: Path
):
    database = Database(migrated_postgres_url)
    async with (
        running(tmp_path, database=database) as stack,
        stack.http(ADDER) as http,
        stack.http(NOVICE) as stranger,
    ):
        asked = await http.post("/v1/chat/completions", json=chat())
        said = {"id": asked.json()["id"], "score": 1}
        async with refusing(database, refusal):
            unsaid = await http.post("/v1/feedback", json=said)
            assert is_told_to_come_again(unsaid)
            assert "Feedback" in unsaid.json()["error"]["message"]
            assert is_told_to_come_again(await http.get("/v1/models"))
            assert is_told_to_come_again(await stranger.post("/v1/chat/completions", json=chat()))
    await database.close()


@REFUSALS
async def test_a_server_that_takes_no_connections_is_away_for_the_admin_api(
    refusal: type[Exception], migrated_postgres_url: str, tmp_path: Path
):
    database = Database(migrated_postgres_url)
    world = AdminWorld(database, tmp_path)
    async with client_of(world) as api, refusing(database, refusal):
        assert is_told_to_come_again(await api.get("/tenants"))
        assert is_told_to_come_again(await api.post("/tenants", json={"name": "adder"}))
    await database.close()


async def test_a_session_that_is_ended_by_the_administrator_is_told_to_come_again(
    migrated_postgres_url: str, tmp_path: Path
):
    database = Database(migrated_postgres_url)
    world = AdminWorld(database, tmp_path)

    @world.app.get("/ended")
    async def ended() -> None:
        async with database.transaction() as session:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    async with httpx.AsyncClient(transport=world.transport, base_url="http://server") as http:
        assert is_told_to_come_again(await http.get("/ended"))
    await database.close()
