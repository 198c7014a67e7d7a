"""Packed rows against padded ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace as replace_fields

from adapters.batch import LearnerConfig, TrainSample

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.training.microbatches import MicroBatch

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(rank=4, alpha=8, learning_rate=1e-2, token_budget=40, kl_coef=0.1)
GROUPS = {
    "several": [(3, (2, 4)), (5, (1,)), (0, (3, 2)), (1, (6, 1, 2))],
    "no prefixes": [(0, (3, 2)), (0, (4,))],
    "one": [(4, (2, 3, 1))],
    "one sample": [(2, (3,))],
    "one sample each": [(2, (3,)), (7, (1,))],
}


@pytest.fixture(scope="module")
def padded_base(model_dir: Path) -> Any:
    """The model as if it could not be packed."""
    from adapters.training.base_model import load_base

    base = load_base(str(model_dir), device="cpu", dtype="float32")
    base.model.set_attn_implementation("sdpa")
    return replace(base, packed=False)


@pytest.fixture
def padded(padded_base: Any) -> Iterator[Any]:
    from adapters.training.policy import Policy

    policy = Policy(padded_base)
    yield policy
    policy.close()


def parts(samples: list[TrainSample], token_budget: int, *, packed: bool) -> list[MicroBatch]:
    import torch

    from adapters.training.microbatches import microbatches

    found = microbatches(
        samples, token_budget=token_budget, packed=packed, device=torch.device("cpu")
    )
    return list(found)


def test_the_bundled_kind_of_model_is_packed(float32_base: Any, bfloat16_base: Any) -> None:
    assert float32_base.packed
    assert bfloat16_base.packed


@pytest.fixture
def many() -> list[TrainSample]:
    """Groups of one to five samples, in no order, with prompts and completions of many lengths;
    some of them twice.
    """
    rng = random.Random(11)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(64) for _ in range(count)]

    made: list[TrainSample] = []
    for size, length in ((1, 1), (4, 1), (2, 9), (5, 3), (3, 30), (4, 5), (1, 12), (2, 4)):
        prompt = tokens(length)
        for completion in (tokens(rng.choice([1, 3, 8, 20])) for _ in range(size)):
            logprobs = [-rng.uniform(1, 7) for _ in completion]
            advantage = rng.choice([0.75, -0.25, 0.5])
            made.append(TrainSample(prompt, completion, logprobs, [advantage] * len(completion)))
    for twin in made[::4]:
        advantages = [-0.5] * len(twin.completion_ids)
        made.append(replace_fields(twin, advantages=advantages))
    rng.shuffle(made)
    return made


def separately(groups: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention of a row, (1, T, heads, d), one sequence at a time."""
    import torch

    split = at = sum(prefix for prefix, _ in groups)
    before, firsts, owns = 0, [], []
    for prefix, lengths in groups:
        first = list(range(before, before + prefix))
        before += prefix
        firsts.append(_alone(first, query, key, value))
        for length in lengths:
            whole = [*first, *range(at, at + length)]
            at += length
            owns.append(_alone(whole, query, key, value)[prefix:])
    made = torch.cat([*firsts, *owns])
    assert len(made) == at
    assert split <= at
    return made[None]


def _alone(places: list[int], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(places, heads, d): softmax as in the books."""
    import torch

    repeated = query.shape[1] // key.shape[1]
    query, key, value = (part[0, :, places] for part in (query, key, value))
    key, value = (part.repeat_interleave(repeated, dim=0) for part in (key, value))
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value).transpose(0, 1)


@pytest.mark.parametrize("most_keys", [0, 128], ids=["torch's kernel", "short"])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
def test_attention_and_its_gradients_are_those_of_each_sample_alone(
    monkeypatch: pytest.MonkeyPatch, groups: Any, most_keys: int
) -> None:
    import torch

    from adapters.training import packing
    from adapters.training.packing import GroupShape, attention, layout_of

    monkeypatch.setattr(packing, "MOST_KEYS", most_keys)
    torch.manual_seed(3)
    size = sum(prefix + sum(lengths) for prefix, lengths in groups)
    shapes = ((1, 4, size, 8), (1, 2, size, 8), (1, 2, size, 8))
    parts = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    layout = layout_of([GroupShape(*group) for group in groups], torch.device("cpu"))
    query, key, value = parts
    if len(groups) == 1 and len(groups[0][1]) == 1:  # the row is one sequence
        groups = [(0, (size,))]
    ours, _ = attention(None, query, key, value, None, packing=layout)
    theirs = separately(groups, query, key, value)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad((ours * weights).sum(), parts),
        torch.autograd.grad((theirs * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("token_budget", [1, 23, 64, 10_000])
@pytest.mark.parametrize("which", ["samples", "many"])
def test_scores_are_those_of_padded_samples(
    request: pytest.FixtureRequest, policy: Any, padded: Any, which: str, token_budget: int
) -> None:
    from adapters.training.update import score

    samples = request.getfixturevalue(which)
    settings: dict[str, Any] = {"under": "base", "temperature": 0.9, "token_budget": token_budget}
    for ours, theirs in zip(
        score(policy, samples, **settings), score(padded, samples, **settings), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("which", ["samples", "many"])
def test_updates_are_those_of_padded_samples(
    request: pytest.FixtureRequest, policy: Any, padded: Any, which: str
) -> None:
    import torch

    from adapters.training.update import update

    samples = request.getfixturevalue(which)
    for one in (policy, padded):
        one.open(CONFIG, None, None)
    for _ in range(2):
        ours, theirs = update(policy, samples), update(padded, samples)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
    for name, master in policy._opened().masters.items():
        torch.testing.assert_close(
            master, padded._opened().masters[name].detach(), rtol=1e-3, atol=1e-4
        )


def test_gradient_checkpointing_changes_no_number(
    policy: Any, model_dir: Path, samples: list[TrainSample]
) -> None:
    from adapters.training.base_model import load_base
    from adapters.training.policy import Policy
    from adapters.training.update import update

    base = load_base(str(model_dir), device="cpu", dtype="float32", gradient_checkpointing=True)
    frugal = Policy(base)
    for one in (policy, frugal):
        one.open(CONFIG, None, None)
    assert base.packed
    for _ in range(2):
        ours, theirs = update(frugal, samples), update(policy, samples)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)


def test_what_samples_have_in_common_is_read_once_and_nothing_is_padding(
    many: list[TrainSample],
) -> None:
    wholes = {(*sample.prompt_ids, *sample.completion_ids[:-1]) for sample in many}
    assert len(wholes) < len(many)
    different = {whole[:size] for whole in wholes for size in range(1, len(whole) + 1)}
    [row] = parts(many, 10_000, packed=True)
    # Where a prompt is all that is read of one sample, its last token is not shared.
    assert len(different) <= row.input_ids.numel() <= 1.03 * len(different)
    assert 1.03 * len(different) < 0.9 * sum(map(len, wholes))


@pytest.mark.parametrize("token_budget", [1, 20, 45, 100])
def test_no_row_is_over_the_budget_but_a_group_that_has_one_alone(
    many: list[TrainSample], token_budget: int
) -> None:
    for batch in parts(many, token_budget, packed=True):
        prompts = {tuple(many[index].prompt_ids) for index in batch.indices}
        assert batch.layout is not None
        if len(prompts) > 1:
            assert batch.input_ids.numel() <= token_budget
        elif batch.layout.own.num_rows > 1:
            assert batch.input_ids.numel() <= token_budget + batch.layout.split


def test_small_groups_share_rows() -> None:
    pairs = [TrainSample([at // 2, 5, 6], [at % 2, 8, 9], [], []) for at in range(24)]
    rows = parts(pairs, 43, packed=True)
    assert [len(row.indices) for row in rows] == [12, 12]  # a pair has 3 tokens, and 2 twice


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("token_budget", [1, 12, 30, 10_000])
def test_every_target_is_predicted_by_the_token_before_it(
    many: list[TrainSample], token_budget: int, packed: bool
) -> None:
    seen: list[int] = []
    for batch in parts(many, token_budget, packed=packed):
        assert batch.lengths == tuple(len(many[i].completion_ids) for i in batch.indices)
        copies = slice(None) if batch.copies is None else batch.copies
        before = batch.input_ids.flatten()[batch.positions[copies]].tolist()
        targets = batch.targets[copies].tolist()
        for index, length in zip(batch.indices, batch.lengths, strict=True):
            sample = many[index]
            assert targets[:length] == sample.completion_ids
            assert before[:length] == [sample.prompt_ids[-1], *sample.completion_ids[:-1]]
            before, targets = before[length:], targets[length:]
        seen.extend(batch.indices)
    assert sorted(seen) == list(range(len(many)))


def test_a_sliding_window_is_not_packed(model_dir: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from adapters.training.base_model import load_base

    config = Qwen2Config.from_pretrained(model_dir)
    config.layer_types = ["full_attention", "sliding_attention"]
    config.use_sliding_window, config.sliding_window = True, 4
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    for file in model_dir.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    base = load_base(str(tmp_path), device="cpu", dtype="float32")
    assert not base.packed
    assert base.model.config._attn_implementation == "sdpa"


def test_a_model_that_computes_something_else_stays_as_it_was(float32_base: Any) -> None:
    from adapters.training import packing

    model = float32_base.model
    model.set_attn_implementation("sdpa")
    layers = model.base_model.layers
    forward = layers[0].self_attn.forward

    def softly(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, softcap=30.0, **named)

    layers[0].self_attn.forward = softly
    try:
        assert not packing.try_packing(model)
        assert model.config._attn_implementation == "sdpa"
    finally:
        layers[0].self_attn.forward = forward
        assert packing.try_packing(model)


def test_a_long_prompt_does_not_share_a_row_with_many_short_samples() -> None:
    def group(at: int, prompt: int, samples: int) -> list[TrainSample]:
        ends = [[end, *[at] * 7] for end in range(100, 100 + samples)]
        return [TrainSample([at] * prompt, end, [-1.0] * 8, [1.0] * 8) for end in ends]

    samples = [*group(1, 900, 2), *group(2, 20, 30), *group(3, 21, 30)]
    rows = [set(batch.indices) for batch in parts(samples, 4096, packed=True)]
    assert sorted(map(len, rows)) == [2, 60]
