"""A tenant's settings, as the trainer gets them."""

from __future__ import annotations

from ttrl_client.types import Learning

from adapters.batch import LearnerConfig
from server.adaptation.run import learner_config
from server.config import Settings


def test_every_knob_of_the_learner_is_the_tenants() -> None:
    learning = Learning(
        steps=7,
        learning_rate=0.02,
        schedule="cosine",
        warmup=0.25,
        weight_decay=0.03,
        max_grad_norm=0.5,
        epochs=2,
        minibatches=3,
        temperature=0.9,
        clip_low=0.1,
        clip_high=0.4,
        dual_clip=None,
        tis_cap=None,
        kl_coef=0.05,
    )
    assert learner_config(Settings(lora_rank=8, lora_alpha=24), learning, seed=11) == LearnerConfig(
        rank=8,
        alpha=24,
        learning_rate=0.02,
        schedule="cosine",
        warmup=0.25,
        total_updates=42,
        weight_decay=0.03,
        max_grad_norm=0.5,
        epochs=2,
        minibatches=3,
        temperature=0.9,
        clip_low=0.1,
        clip_high=0.4,
        dual_clip=None,
        tis_cap=None,
        kl_coef=0.05,
        seed=11,
    )


def test_the_published_preset_makes_eight_updates_of_a_batch() -> None:
    config = learner_config(Settings(), Learning.model_validate({"preset": "paper"}), seed=0)
    assert (config.epochs, config.minibatches, config.schedule) == (1, 8, "cosine")
    assert (config.clip_low, config.clip_high, config.dual_clip) == (0.2, 0.2, 3.0)
    assert (config.tis_cap, config.kl_coef, config.warmup) == (None, 0.001, 0.03)
    assert config.total_updates == 20 * 8
