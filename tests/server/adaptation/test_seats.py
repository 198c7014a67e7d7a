"""Background work makes room for users."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from server.adaptation import seats
from server.adaptation.seats import QUIET_S, Seats
from server.errors import CycleCancelled
from tests.waiting import until


class Bench:
    """Asks that end when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, size: int = 4, busy: int = 1) -> None:
        self.age = float("inf")
        self.begun: list[int] = []
        self.cut: list[int] = []
        self.running: dict[int, asyncio.Event] = {}
        self.orders = 0
        settings = SimpleNamespace(background_requests=size, background_requests_busy=busy)
        run: Any = SimpleNamespace(tools=SimpleNamespace(settings=settings))
        monkeypatch.setattr(seats, "follow_orders", self.follow_orders)
        monkeypatch.setattr(seats, "LOOK_EVERY_S", 0)
        self.seats = Seats(run, age=lambda: self.age)

    async def follow_orders(self, _run: Any) -> None:
        self.orders += 1

    def ask(self, number: int) -> asyncio.Task[int]:
        async def asked() -> int:
            self.begun.append(number)
            self.running[number] = asyncio.Event()
            try:
                await self.running[number].wait()
            except asyncio.CancelledError:
                self.cut.append(number)
                raise
            finally:
                del self.running[number]
            return number

        return asyncio.create_task(self.seats.run(asked))


async def finish(bench: Bench, tasks: list[asyncio.Task[int]]) -> list[int]:
    async with asyncio.timeout(20):
        while not all(task.done() for task in tasks):
            for event in bench.running.values():
                event.set()
            await asyncio.sleep(0)
    return [task.result() for task in tasks]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_no_more_are_asked_at_once_than_there_are_seats(bench: Bench) -> None:
    tasks = [bench.ask(number) for number in range(10)]
    await until(lambda: len(bench.running) == 4)
    assert await finish(bench, tasks) == list(range(10))
    assert bench.begun == list(range(10))


async def test_users_who_arrive_get_the_newest_ones_place(bench: Bench) -> None:
    tasks = [bench.ask(number) for number in range(6)]
    await until(lambda: len(bench.running) == 4)
    bench.age = 0.1
    await until(lambda: len(bench.running) == 1)
    assert list(bench.running) == [0]
    assert sorted(bench.cut) == [1, 2, 3]
    bench.running[0].set()
    await until(lambda: len(bench.begun) == 5)
    assert len(bench.running) == 1
    assert sorted(await finish(bench, tasks)) == list(range(6))


async def test_all_seats_are_taken_again_when_it_is_quiet(bench: Bench) -> None:
    bench.age = 0.1
    tasks = [bench.ask(number) for number in range(6)]
    await until(lambda: len(bench.running) == 1)
    bench.age = QUIET_S + 1
    await until(lambda: len(bench.running) == 4)
    assert bench.cut == []
    await finish(bench, tasks)


async def test_what_was_cut_off_goes_before_what_waits(bench: Bench) -> None:
    tasks = [bench.ask(number) for number in range(5)]
    await until(lambda: len(bench.running) == 4)
    bench.age = 0.1
    await until(lambda: len(bench.cut) == 3 and len(bench.seats._waiting) == 4)
    bench.age = QUIET_S + 1
    await until(lambda: len(bench.running) == 4)
    assert set(bench.running) == {0, 1, 2, 3}
    await finish(bench, tasks)


async def test_an_error_is_passed_on_and_frees_the_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, size=1)

    async def fails() -> None:
        raise CycleCancelled("stop")

    for _ in range(3):
        with pytest.raises(CycleCancelled):
            await bench.seats.run(fails)
    assert await finish(bench, [bench.ask(1)]) == [1]


async def test_who_does_not_want_it_any_more_ends_it(bench: Bench) -> None:
    tasks = [bench.ask(number) for number in range(5)]
    await until(lambda: len(bench.running) == 4)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(bench.cut) == [0, 1, 2, 3]
    assert await finish(bench, [bench.ask(number) for number in range(4)]) == [0, 1, 2, 3]


async def test_orders_are_read_once_per_so_many_seats(bench: Bench) -> None:
    await finish(bench, [bench.ask(number) for number in range(8)])
    assert bench.orders == 2
