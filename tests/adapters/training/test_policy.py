"""Opening, saving and continuing an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from adapters.batch import LearnerConfig, TrainSample

if TYPE_CHECKING:
    from adapters.training.policy import Policy

pytestmark = pytest.mark.train

CONFIG = LearnerConfig(rank=4, alpha=8, learning_rate=1e-2, token_budget=60)


def scores(policy: Policy, samples: list[TrainSample], under: str = "adapter") -> Any:
    from adapters.training.update import score

    return score(policy, samples, under=under, temperature=1.0, token_budget=60)


@pytest.mark.parametrize("base_name", ["float32_base", "bfloat16_base"])
def test_an_interrupted_run_continues_bit_for_bit(
    request: pytest.FixtureRequest, base_name: str, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.policy import Policy
    from adapters.training.update import update

    base = request.getfixturevalue(base_name)
    first = Policy(base)
    first.open(CONFIG, None, None)
    update(first, samples)
    update(first, samples[:7])
    first.save(tmp_path / "s2" / "adapter", tmp_path / "s2" / "state")
    update(first, samples[3:])
    first.save(tmp_path / "whole" / "adapter", tmp_path / "whole" / "state")
    first.close()

    second = Policy(base)
    second.open(CONFIG, tmp_path / "s2" / "adapter", tmp_path / "s2" / "state")
    update(second, samples[3:])
    second.save(tmp_path / "resumed" / "adapter", tmp_path / "resumed" / "state")
    second.close()

    for name in ("adapter/adapter_model.safetensors", "state/state.safetensors"):
        whole, resumed = (tmp_path / run / name for run in ("whole", "resumed"))
        assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("base_name", ["float32_base", "bfloat16_base"])
def test_the_saved_weights_are_those_that_the_trainer_computes_with(
    request: pytest.FixtureRequest, base_name: str, samples: list[TrainSample], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from adapters.training.policy import Policy
    from adapters.training.update import update

    base = request.getfixturevalue(base_name)
    policy = Policy(base)
    policy.open(CONFIG, None, None)
    update(policy, samples)
    expected = scores(policy, samples)
    policy.save(tmp_path / "adapter", None)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    policy.open(CONFIG, tmp_path / "adapter", None)
    assert {tensor.dtype for tensor in saved.values()} == {base.dtype}
    assert scores(policy, samples) == expected
    policy.close()


def test_peft_loads_the_saved_adapter_and_computes_the_same(
    policy: Policy, samples: list[TrainSample], model_dir: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    update(policy, samples)
    policy.save(tmp_path / "adapter", None)
    auto: Any = AutoModelForCausalLM
    loaded = PeftModel.from_pretrained(auto.from_pretrained(model_dir), str(tmp_path / "adapter"))
    sample = samples[0]
    ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
    first = len(sample.prompt_ids)
    with torch.no_grad():
        table = loaded(input_ids=ids).logits[0].log_softmax(-1)[first - 1 : -1]
    expected = table.gather(1, ids[0, first:, None])[:, 0]
    assert scores(policy, [sample])[0] == pytest.approx(expected.tolist(), abs=1e-5)


def test_only_pefts_two_files_are_written(policy: Policy, tmp_path: Path) -> None:
    policy.open(CONFIG, None, None)
    files = policy.save(tmp_path / "a" / "adapter", tmp_path / "a" / "state")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    assert [file.name for file in files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "state.safetensors",
    ]


def test_saving_again_replaces_the_folder(
    policy: Policy, samples: list[TrainSample], tmp_path: Path
) -> None:
    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    policy.save(tmp_path / "adapter", None)
    update(policy, samples)
    policy.save(tmp_path / "adapter", None)
    trained = scores(policy, samples)
    policy.open(CONFIG, tmp_path / "adapter", None)
    assert scores(policy, samples) == trained
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_adapters_follow_each_other_without_a_trace(
    policy: Policy, samples: list[TrainSample]
) -> None:
    from adapters.training.update import update

    base = scores(policy, samples, under="base")
    policy.open(CONFIG, None, None)
    update(policy, samples)
    trained = scores(policy, samples)
    policy.open(msgspec.structs.replace(CONFIG, rank=2, seed=3), None, None)
    assert scores(policy, samples) == base
    policy.open(CONFIG, None, None)
    update(policy, samples)
    assert scores(policy, samples) == trained
    policy.close()
    assert scores(policy, samples, under="base") == base


def test_nothing_can_be_done_without_an_adapter(policy: Policy, samples: list[TrainSample]) -> None:
    from adapters.training.policy import NoAdapter
    from adapters.training.update import update

    with pytest.raises(NoAdapter):
        update(policy, samples)
    with pytest.raises(NoAdapter):
        scores(policy, samples)


def _break_rank(folder: Path) -> None:
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 8'))


def _break_tensor(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors, next(iter(tensors)))
    save_file(tensors, file)


BREAKS: dict[str, Any] = {
    "rank": _break_rank,
    "not JSON": lambda folder: (folder / "adapter_config.json").write_text("{"),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "NaN": lambda folder: _break_tensor(folder, lambda t, n: t[n].fill_(float("nan"))),
    "missing": lambda folder: _break_tensor(folder, lambda t, n: t.pop(n)),
    "unknown": lambda folder: _break_tensor(folder, lambda t, n: t.update(x=t[n].clone())),
    "shape": lambda folder: _break_tensor(folder, lambda t, n: t.update({n: t[n][:1].clone()})),
    "state of another": lambda folder: _break_tensor(folder, lambda t, n: t[n].add_(1)),
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_adapter_is_refused_and_the_open_one_stays(
    policy: Policy, samples: list[TrainSample], tmp_path: Path, damage: Any
) -> None:
    from adapters.training.update import update

    policy.open(CONFIG, None, None)
    policy.save(tmp_path / "adapter", tmp_path / "state")
    update(policy, samples)
    expected = scores(policy, samples)
    damage(tmp_path / "adapter")
    with pytest.raises((ValueError, OSError)):
        policy.open(CONFIG, tmp_path / "adapter", tmp_path / "state")
    assert scores(policy, samples) == expected


def test_gradient_checkpointing_computes_the_same(
    model_dir: Path, policy: Policy, samples: list[TrainSample]
) -> None:
    from adapters.training.base_model import load_base
    from adapters.training.policy import Policy
    from adapters.training.update import update

    frugal = Policy(
        load_base(str(model_dir), device="cpu", dtype="float32", gradient_checkpointing=True)
    )
    frugal.open(CONFIG, None, None)
    policy.open(CONFIG, None, None)
    assert update(frugal, samples).grad_norm == pytest.approx(update(policy, samples).grad_norm)


def test_the_digest_follows_the_weights(model_dir: Path, tmp_path: Path) -> None:
    import shutil

    from adapters.base_digest import base_digest

    copy = tmp_path / "copy"
    shutil.copytree(model_dir, copy)
    assert base_digest(copy) == base_digest(model_dir)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert base_digest(copy) != base_digest(model_dir)
