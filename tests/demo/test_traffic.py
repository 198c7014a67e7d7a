"""The tenants' users: who is asked what, in which manner, and for how long."""

from __future__ import annotations

import asyncio
from collections import Counter

from demo.asking import Asker, Exchange
from demo.plan import ADDER, NOVICE, PLAYERS
from demo.questions import Question, is_held_out
from demo.traffic import Background, Ledger, ask_once_each, is_stored, is_streamed
from tests.demo.conftest import exchange_of

FAST = 1e6  # requests a second


class _Asker(Asker):
    """Answers soon, or once `open` is set, and remembers what it was asked."""

    def __init__(self, tenant: str, *, answers: bool = True) -> None:
        self.tenant = tenant
        self.asked: list[tuple[str, bool, bool]] = []
        self.in_flight = self.peak = 0
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        if answers:
            self.open.set()

    async def ask(
        self, question: str, *, samples: int = 1, stream: bool = False, store: bool = True
    ) -> Exchange:
        self.asked.append((question, stream, store))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.arrived.set()
        await self.open.wait()
        for _ in range(10):  # others may come in meanwhile
            await asyncio.sleep(0)
        self.in_flight -= 1
        return exchange_of(tenant=self.tenant, streamed=stream, stored=store)


class _Counting(Ledger):
    """Says when it holds so many exchanges."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted
        self.reached = asyncio.Event()

    def note(self, exchange: Exchange) -> None:
        super().note(exchange)
        if len(self.exchanges) == self._wanted:
            self.reached.set()


def _background(
    askers: list[_Asker], ledger: Ledger, *, at_once: int = 4, questions: int = 3
) -> Background:
    return Background(
        {asker: ADDER.draw(1, questions) for asker in askers},
        brisk_requests=10,
        brisk_per_s=FAST,
        gentle_per_s=FAST,
        burst=4,
        at_once=at_once,
        seen=ledger.note,
    )


async def test_the_first_traffic_asks_each_question_once_and_streams_half() -> None:
    asker, ledger = _Asker("adder"), Ledger()
    questions = ADDER.draw(1, 10)
    await ask_once_each([(asker, q) for q in questions], at_once=3, seen=ledger.note)
    assert Counter(text for text, _, _ in asker.asked) == Counter(q.text for q in questions)
    assert ledger.streamed_share == 0.5
    assert all(stored for _, _, stored in asker.asked)


async def test_tenants_take_turns_and_start_over_with_their_questions() -> None:
    askers, ledger = [_Asker("adder"), _Asker("novice")], _Counting(10)
    async with _background(askers, ledger).going():
        await ledger.reached.wait()
    texts = [text for text, _, _ in askers[0].asked]
    assert texts[3:5] == texts[:2]
    assert abs(len(askers[0].asked) - len(askers[1].asked)) <= 1


async def test_what_is_in_flight_at_the_end_is_waited_for() -> None:
    asker, ledger = _Asker("adder", answers=False), Ledger()
    async with _background([asker], ledger).going():
        await asker.arrived.wait()
        asyncio.get_running_loop().call_soon(asker.open.set)
    assert len(ledger.exchanges) == len(asker.asked) > 0


async def test_no_more_than_so_many_are_in_flight() -> None:
    asker, ledger = _Asker("adder"), _Counting(20)
    async with _background([asker], ledger, at_once=2).going():
        await ledger.reached.wait()
    assert asker.peak == 2


def test_each_tenant_gets_streamed_and_whole_and_a_few_opted_out_ones() -> None:
    for turn in (0, 1):
        mine = range(turn, 1000, 2)
        assert sum(map(is_streamed, mine)) == 250
        opted_out = [index for index in mine if not is_stored(index)]
        assert len(opted_out) == 20
        assert {is_streamed(index) for index in opted_out} == {False, True}


def test_the_ledger_counts() -> None:
    ledger = Ledger()
    assert (ledger.streamed_share, ledger.adapter_of("adder")) == (0.0, None)
    ledger.note(exchange_of(streamed=True))
    ledger.note(exchange_of(tenant="novice", adapter="novice--v0"))
    ledger.note(exchange_of(adapter=None, problem="no"))
    assert (ledger.num_failed, ledger.streamed_share) == (1, 1 / 3)
    assert (ledger.adapter_of("adder"), ledger.adapter_of("novice")) == ("adder--v0", "novice--v0")


def _pair(question: Question) -> tuple[int, int]:
    return min(question.a, question.b), max(question.a, question.b)


def test_no_question_is_asked_for_two_purposes() -> None:
    for player in PLAYERS:
        parts = [*player.traffic(), *player.fresh()]
        pairs = [_pair(question) for part in parts for question in part]
        assert len(set(pairs)) == len(pairs)
        assert all(is_held_out(q.a, q.b) for part in player.fresh() for q in part)


def test_each_players_questions_match_its_views() -> None:
    for player in (ADDER, NOVICE):
        (view,) = player.settings().views
        assert {q.kind for part in player.traffic() for q in part} == {player.kind}
        assert len(view.templates) == 3
