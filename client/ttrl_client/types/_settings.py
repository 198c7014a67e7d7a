"""Everything that is decided per tenant."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from ttrl_client.types._base import WireInput
from ttrl_client.types._limits import Limits
from ttrl_client.types._views import View

Estimator = Literal["harmony", "majority", "majority_strict", "soft", "selective", "confidence"]

AnswerKind = Literal["auto", "math", "number", "choice", "label", "json", "regex", "text", "python"]

# TTRL as published: verl/examples/ttrl of PRIME-RL/TTRL. Its learning rate of 5e-7 is for full
# weights; LoRA wants some ten times that (docs/algorithm.md).
PAPER: dict[str, Any] = {
    "samples_per_prompt": 64,
    "train_samples": 32,
    "downsample": "first",
    "served_votes": False,
    "incumbent_votes": 0,
    "max_tokens": 3072,
    "estimator": "majority_strict",
    "steady": False,
    "min_answers": 1,
    "advantage": "grpo",
    "learning_rate": 5e-6,
    "schedule": "cosine",
    "warmup": 0.03,
    "weight_decay": 0.01,
    "minibatches": 8,
    "clip_high": 0.2,
    "tis_cap": None,
    "kl_coef": 0.001,
    "stop": {"enabled": False},
    "average": False,
    "use_feedback": False,
}

MAX_INTERVAL_S = 3650 * 24 * 3600  # ten years
MANY = 1_000_000  # bound of counts that nothing else bounds


class Schedule(WireInput):
    """When cycles start by themselves. All unset: only when asked. Several may be set."""

    interval_s: int | None = Field(
        default=None, ge=10, le=MAX_INTERVAL_S, description="Every so many seconds."
    )
    cron: str | None = Field(
        default=None,
        max_length=100,
        description="A crontab line with five fields, in UTC, that fires within ten years.",
    )
    min_new_queries: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="After so many new eligible queries since the last cycle started.",
    )


class StopRules(WireInput):
    """When a cycle stops learning early and goes back to its best step."""

    enabled: bool = Field(default=True, description="False runs all steps, whatever happens.")
    max_answer_rate_drop: float = Field(
        default=0.2, ge=0, le=1, description="Collapse: the answer rate fell by more than this."
    )
    min_entropy_ratio: float = Field(
        default=0.02, ge=0, le=1, description="Collapse: entropy fell below this share of step 1's."
    )
    max_kl: float = Field(
        default=1.0, gt=0, description="Most drift of one step's samples to the base, nats a token."
    )
    patience: int = Field(
        default=20,
        ge=1,
        le=MANY,
        description="Most steps without a better vote than the best so far.",
    )


class Learning(WireInput):
    """How a cycle samples and learns."""

    preset: Literal["default", "paper"] = Field(
        default="default",
        description="Where unset fields come from: ours, or TTRL as published (its learning rate "
        "translated to LoRA).",
    )
    steps: int = Field(default=20, ge=1, le=1000, description="Batches of samples in a cycle.")
    prompts_per_step: int = Field(
        default=8, ge=1, le=256, description="Prompts sampled for one batch."
    )
    samples_per_prompt: int = Field(
        default=12,
        ge=2,
        le=256,
        description="Most votes of one prompt, split over its views: four a view or more is wise.",
    )
    wave: int | None = Field(
        default=None,
        ge=2,
        le=256,
        description="Votes sampled at a time: sampling stops when the vote is decided or "
        "unanimous. Unset: all at once.",
    )
    stop_confidence: float = Field(
        default=0.99, gt=0.5, lt=1, description="How sure a vote is decided (Beta criterion)."
    )
    train_samples: int | None = Field(
        default=None, ge=2, le=256, description="Samples of a prompt to train on. Unset: all."
    )
    downsample: Literal["first", "max_variance"] = Field(
        default="max_variance", description="Which of them, where there are more."
    )
    served_votes: bool = Field(
        default=True,
        description="Answers that the current version gave to users under the same sampling "
        "settings vote as well.",
    )
    incumbent_votes: int = Field(
        default=4,
        ge=0,
        le=MANY,
        description="So many of the samples of a prompt without a label yet are the current "
        "version's, at most half, once the cycle has changed the weights: they vote, nothing is "
        "trained on them, and what none of them answers is no label.",
    )
    ahead: bool = Field(
        default=False,
        description="Sample the answers of a step while the step before is still learned from: "
        "faster, from weights that are one update older.",
    )
    max_tokens: int = Field(
        default=512, ge=1, le=32768, description="Longest sampled answer, in tokens."
    )
    temperature: float = Field(default=1.0, gt=0, le=2, description="Sampling temperature.")
    max_prompts: int = Field(
        default=512, ge=1, le=100_000, description="Most prompts that a cycle trains on."
    )
    min_prompts: int = Field(
        default=8,
        ge=1,
        le=MANY,
        description="Fewer eligible prompts than this: the cycle is skipped.",
    )
    max_visits: int = Field(
        default=40,
        ge=1,
        le=MANY,
        description="Most updates that one prompt may take part in, over all cycles.",
    )
    prompt_order: Literal["fresh", "variance", "impact"] = Field(
        default="fresh",
        description="Which prompts come first: the newest, those with the highest p(1-p), or "
        "those with the highest learning impact (LIMR).",
    )
    estimator: Estimator = Field(
        default="harmony",
        description="How votes become a label and rewards; harmony equals majority for a prompt "
        "with one view.",
    )
    guard: bool = Field(
        default=False, description="Weigh down prompts whose label flips from visit to visit."
    )
    steady: bool = Field(
        default=True,
        description="Do not train on a prompt whose label is another than its first one in the "
        "cycle, or at a cycle's first visit than its last one.",
    )
    min_answers: int = Field(
        default=8, ge=1, le=MANY, description="Fewer answers than this in a group: it abstains."
    )
    use_feedback: bool = Field(
        default=True,
        description="The correct answer of a prompt, where feedback has told it, is its label in "
        "the place of the vote's.",
    )
    trust_scores: bool = Field(
        default=False,
        description="A score of 1 says that the scored answer is the correct one, to the learner "
        "and to the gate.",
    )
    exploration_bonus: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Most that length may add to the reward of a sample with the label.",
    )
    advantage: Literal["grpo", "dr_grpo", "rloo", "reinforce++"] = Field(
        default="dr_grpo", description="How rewards become advantages."
    )
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Peak learning rate of AdamW."
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="Course of the learning rate over the cycle."
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the cycle's updates that warm up."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to it.")
    epochs: int = Field(default=1, ge=1, le=16, description="Times that a batch is gone through.")
    minibatches: int = Field(
        default=1, ge=1, le=64, description="Optimizer updates in one go through a batch."
    )
    clip_low: float = Field(default=0.2, gt=0, le=1, description="Ratio clip below 1.")
    clip_high: float = Field(default=0.28, gt=0, description="Ratio clip above 1.")
    dual_clip: float | None = Field(
        default=3.0, gt=1, description="Most weight of a token with negative advantage."
    )
    tis_cap: float | None = Field(
        default=2.0,
        gt=0,
        description="Cap of the importance weight against the engine's log-probabilities; null "
        "leaves the weight out.",
    )
    kl_coef: float = Field(
        default=0.0, ge=0, description="Weight of the k3 penalty towards the base model."
    )
    stop: StopRules = Field(default=StopRules(), description="When to stop early.")
    average: bool = Field(
        default=True,
        description="The candidate is the mean of the weights of the steps that were as good as "
        "the best one. False: those of the last step, or after an early stop of the best.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """What the preset says, under what is said explicitly."""
        if not isinstance(data, dict):
            return data
        said = cast("dict[str, Any]", data)
        return PAPER | said if said.get("preset") == "paper" else said

    @model_validator(mode="after")
    def _sizes_fit(self) -> Learning:
        if self.train_samples is not None and self.train_samples > self.samples_per_prompt:
            raise ValueError("train_samples: more than samples_per_prompt")
        return self


class Gate(WireInput):
    """What a candidate must prove on held-out prompts. All conditions must hold."""

    enabled: bool = Field(
        default=True, description="False promotes every candidate. Not recommended."
    )
    probe_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of prompts that is never trained on."
    )
    probe_prompts: int = Field(
        default=32, ge=1, le=1000, description="Most probe prompts in one evaluation."
    )
    min_probe_prompts: int = Field(
        default=8, ge=1, le=MANY, description="Fewer probe prompts than this: the cycle is skipped."
    )
    samples_per_prompt: int = Field(
        default=24, ge=2, le=256, description="Samples of a probe prompt, split over its views."
    )
    min_view_agreement: float = Field(
        default=0.7, ge=0, le=1, description="Labels are trusted when views agree this often."
    )
    min_gain: float = Field(
        default=0.03, ge=-1, le=1, description="Least rise of the agreement with the labels."
    )
    max_flip_rate: float = Field(
        default=0.35, ge=0, le=1, description="Most probe labels that may change."
    )
    max_answer_rate_drop: float = Field(
        default=0.05, ge=0, le=1, description="Most that the share of parsable answers falls."
    )
    max_length_ratio: float = Field(
        default=2.0, ge=1, description="Most that the mean length grows or shrinks, as a factor."
    )
    max_kl: float = Field(default=1.0, gt=0, description="Most KL to the base model, nats a token.")
    min_truths: int = Field(
        default=16,
        ge=5,
        le=MANY,
        description="With known truths for so many probe prompts, accuracy decides and not votes.",
    )
    min_accuracy_gain: float = Field(
        default=0.0, ge=-1, le=1, description="Least rise of the accuracy, where truths decide."
    )
    max_accuracy_loss: float = Field(
        default=0.03, ge=0, le=1, description="Most that it may have fallen, at `confidence`."
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="One-sided, of the bounds of that difference."
    )


class AnswerOptions(WireInput):
    """What some kinds of answer need to know."""

    labels: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list[str], max_length=200, description="`label`: all that may be answered."
    )
    field: str | None = Field(
        default=None,
        max_length=200,
        description="`json`: dotted path to the value, such as `result.items.0.name`; unset: the "
        "whole document.",
    )
    pattern: str | None = Field(
        default=None,
        max_length=500,
        description="`regex`: its last match is the answer: the group `answer`, else the first "
        "group, else all of it.",
    )
    entry_point: str | None = Field(
        default=None,
        max_length=100,
        description="`python`: name of an installed entry point of the group `ttrl.answers`: a "
        "function from text to answer or None.",
    )


class Voting(WireInput):
    """Majority answers: a chat is answered several times, and one of the majority is returned."""

    votes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Most answers sampled for a request that does not say; 1: no vote.",
    )
    max_votes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Most that a request may ask for. Unset: the server's bound, which always "
        "holds.",
    )
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        le=1,
        description="How sure a vote is decided (Beta criterion); 1: only when nothing that is to "
        "come could change it.",
    )


class TenantSettings(WireInput):
    """Everything that is decided per tenant."""

    answer: AnswerKind = Field(default="auto", description="Kind of answer to vote on.")
    answer_options: AnswerOptions = Field(
        default=AnswerOptions(), description="What that kind needs to know."
    )
    views: list[View] = Field(
        default_factory=list[View],
        max_length=32,
        description="Other phrasings of questions; the first pattern that matches counts.",
    )
    instructions: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        default_factory=list[str],
        max_length=8,
        description="System messages, each another view of a prompt that has none and that no "
        "pattern of `views` matches.",
    )
    paraphrases: int = Field(
        default=0,
        ge=0,
        le=4,
        description="Views that the model itself writes, of a prompt that no pattern matches.",
    )
    schedule: Schedule = Field(default=Schedule(), description="When cycles start.")
    learning: Learning = Field(default=Learning(), description="How a cycle learns.")
    gate: Gate = Field(default=Gate(), description="What a candidate must prove.")
    limits: Limits = Field(default=Limits(), description="How much traffic is served.")
    voting: Voting = Field(default=Voting(), description="How many answers a chat is voted on.")

    @model_validator(mode="after")
    def _kind_has_its_options(self) -> TenantSettings:
        needed = {"label": "labels", "regex": "pattern", "python": "entry_point"}.get(self.answer)
        if needed is not None and not getattr(self.answer_options, needed):
            raise ValueError(f"answer {self.answer!r} needs answer_options.{needed}")
        return self
