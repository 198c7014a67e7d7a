"""When the plugin puts its class in place, and when it keeps its hands off."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of vLLM's own imports
]

SHIPPED = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's CPU platform, as shipped again after the test."""
    from vllm.platforms import current_platform

    platform = type(current_platform)
    monkeypatch.setattr(platform, "get_punica_wrapper", classmethod(lambda _: SHIPPED))
    return platform


def as_shipped(owner: Any, method: str) -> Iterator[Any]:
    """A class that inherits a method, without its own again after the test."""
    yield owner
    if method in vars(owner):
        delattr(owner, method)


@pytest.fixture(autouse=True)
def runner() -> Iterator[Any]:
    """vLLM's CPU model runner."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    yield from as_shipped(CPUModelRunner, "sample_tokens")


@pytest.fixture(autouse=True)
def worker() -> Iterator[Any]:
    """vLLM's CPU worker."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    yield from as_shipped(CPUWorker, "execute_model")


@pytest.fixture(autouse=True)
def queues(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of vLLM's message queues, as shipped again after the test."""
    from vllm.distributed.device_communicators import shm_broadcast

    monkeypatch.setattr(shm_broadcast, "sched_yield", shm_broadcast.sched_yield)
    return shm_broadcast


@pytest.fixture(autouse=True)
def logprobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module in which vLLM makes log-probabilities ready, as shipped again after the test."""
    from vllm.v1.engine import logprobs

    plain = logprobs.convert_ids_list_to_tokens
    monkeypatch.setattr(logprobs, "convert_ids_list_to_tokens", plain)
    return logprobs


def test_vllm_gets_the_grouped_wrapper(platform: Any) -> None:
    from adapters.vllm_plugin import WRAPPER, register

    register()
    assert platform.get_punica_wrapper() == WRAPPER


def test_registering_twice_is_registering_once(platform: Any) -> None:
    from adapters.vllm_plugin import register

    register()
    hook = vars(platform)["get_punica_wrapper"]
    register()
    assert vars(platform)["get_punica_wrapper"] is hook


def test_an_unknown_version_stays_as_shipped(
    platform: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import vllm

    from adapters.vllm_plugin import register

    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    register()
    assert platform.get_punica_wrapper() == SHIPPED


def test_processes_that_wait_nap(
    platform: Any, queues: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.vllm_plugin import naps, register

    register()
    slept: list[float] = []
    monkeypatch.setattr(queues.sched_yield, "_sleep", slept.append)
    condition = object.__new__(queues.SpinCondition)  # of a reader that has just read
    condition.is_reader, condition.busy_loop_s = True, 1.0
    condition.record_read()
    condition.wait()
    assert slept == [naps.NAP_S]


def test_naps_grow_with_the_wait_and_begin_small_in_the_next_one() -> None:
    from adapters.vllm_plugin.naps import LONGEST_S, NAP_S, SHARE, Naps

    now, slept = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    nap = Naps(sleep, lambda: now)
    began = now
    while now < began + 0.05:
        nap()
        now += NAP_S / 5  # a look at the queue
    assert slept[0] == NAP_S
    assert slept == sorted(slept)
    assert slept[-1] == LONGEST_S
    waited = 0.0
    for seconds in slept:
        assert seconds <= max(NAP_S, SHARE * waited * 1.001)
        waited += seconds + NAP_S / 5
    now += 0.002  # a message came, and was worked on
    nap()
    assert slept[-1] == NAP_S


def test_a_vllm_that_waits_in_another_way_is_left_alone(
    platform: Any, queues: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.vllm_plugin import WRAPPER, register

    monkeypatch.delattr(queues, "sched_yield")
    register()
    assert not hasattr(queues, "sched_yield")
    assert platform.get_punica_wrapper() == WRAPPER


def test_each_token_is_spelt_once(platform: Any, logprobs: Any) -> None:
    from adapters.vllm_plugin import register

    asked: list[list[int]] = []

    def plain(tokenizer: str, token_ids: list[int]) -> list[str]:
        asked.append(token_ids)
        return [f"{tokenizer}{token_id}" for token_id in token_ids]

    logprobs.convert_ids_list_to_tokens = plain
    register()
    register()
    spell = logprobs.convert_ids_list_to_tokens
    assert spell("a", [1, 2]) == ["a1", "a2"]
    assert spell("a", [2, 1, 2]) == ["a2", "a1", "a2"]
    assert spell("a", [2, 3]) == ["a2", "a3"]
    assert spell("a", []) == []
    assert asked == [[1, 2], [2, 3]]
    assert spell("b", [2]) == ["b2"]  # another tokenizer writes it in its own way


def test_spelling_is_vllms_own(logprobs: Any) -> None:
    from transformers import AutoTokenizer

    from adapters.vllm_plugin import register

    plain = logprobs.convert_ids_list_to_tokens
    register()
    auto: Any = AutoTokenizer
    tokenizer = auto.from_pretrained("demo/model")
    ids = list(range(len(tokenizer)))
    for _ in range(2):
        assert logprobs.convert_ids_list_to_tokens(tokenizer, ids) == plain(tokenizer, ids)


@pytest.mark.parametrize("failure", [lambda: "wrong numbers", lambda: 1 / 0])
def test_a_failed_self_test_leaves_vllm_as_shipped(
    platform: Any, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    from adapters.vllm_plugin import register, self_test

    monkeypatch.setattr(self_test, "self_test", failure)
    register()
    assert platform.get_punica_wrapper() == SHIPPED


def test_the_self_test_finds_a_wrapper_that_touches_base_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from adapters.vllm_plugin import self_test

    assert self_test.self_test() is None
    monkeypatch.setattr(self_test, "GroupedPunicaWrapper", PunicaWrapperCPU)
    assert self_test.self_test() is not None


def a_runner(seen: list[dict[int, str]]) -> tuple[Any, Any]:
    """A model runner of four rows, of which 1 and 2 are in the middle of their prompts."""
    import numpy as np

    runner = SimpleNamespace(
        input_batch=SimpleNamespace(num_reqs=4, generators={0: "zero", 2: "two"}),
        discard_request_mask=SimpleNamespace(np=np.array([False, True, True, False, True])),
    )

    def sample_tokens(runner: Any, answer: str) -> str:
        seen.append(dict(runner.input_batch.generators))
        if answer == "fail":
            raise RuntimeError(answer)
        return answer

    return runner, sample_tokens


def test_generators_of_unfinished_prompts_are_not_used() -> None:
    from adapters.vllm_plugin.seeds import spare_generators

    seen: list[dict[int, str]] = []
    runner, sample_tokens = a_runner(seen)
    assert spare_generators(sample_tokens)(runner, "token") == "token"
    assert seen == [{0: "zero"}]
    assert runner.input_batch.generators == {0: "zero", 2: "two"}


def test_generators_come_back_after_a_failure() -> None:
    from adapters.vllm_plugin.seeds import spare_generators

    runner, sample_tokens = a_runner([])
    with pytest.raises(RuntimeError, match="fail"):
        spare_generators(sample_tokens)(runner, "fail")
    assert runner.input_batch.generators == {0: "zero", 2: "two"}


def test_the_runner_is_mended_once(platform: Any, runner: Any) -> None:
    from adapters.vllm_plugin import register

    register()
    platform.get_punica_wrapper()
    mended = vars(runner)["sample_tokens"]
    platform.get_punica_wrapper()
    assert vars(runner)["sample_tokens"] is mended
    assert mended.__wrapped__ is runner.__mro__[1].sample_tokens


class AWorker:
    """Whose model says what it has made of a step: None are logits, to be sampled from."""

    def __init__(self, made: str | None) -> None:
        self.made = made

    def execute_model(self, _: Any) -> str | None:
        return self.made

    def sample_tokens(self, grammar: Any) -> str:
        assert grammar is None
        return "tokens"


@pytest.mark.parametrize(
    ("made", "has_grammar", "answer"),
    [
        (None, False, "tokens"),
        (None, True, None),  # the scheduler asks again, with the bitmask
        ("nothing to do", False, "nothing to do"),
        ("nothing to do", True, "nothing to do"),
    ],
)
def test_a_step_without_a_grammar_is_one_call(
    made: str | None, has_grammar: bool, answer: str | None
) -> None:
    from adapters.vllm_plugin.one_call import sample_at_once

    scheduled = SimpleNamespace(has_structured_output_requests=has_grammar)
    assert sample_at_once(AWorker.execute_model)(AWorker(made), scheduled) == answer


def test_the_worker_is_mended_once(platform: Any, worker: Any) -> None:
    from adapters.vllm_plugin import register

    register()
    platform.get_punica_wrapper()
    mended = vars(worker)["execute_model"]
    platform.get_punica_wrapper()
    assert vars(worker)["execute_model"] is mended
    assert mended.__wrapped__ is worker.__mro__[1].execute_model


def test_a_scheduler_that_does_not_say_what_has_a_grammar_is_left_alone(
    platform: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.core.sched.output import SchedulerOutput

    from adapters.vllm_plugin import WRAPPER, register

    known = dict(SchedulerOutput.__dataclass_fields__)
    del known["has_structured_output_requests"]
    monkeypatch.setattr(SchedulerOutput, "__dataclass_fields__", known)
    register()
    assert platform.get_punica_wrapper() == WRAPPER
    assert "execute_model" not in vars(worker)
