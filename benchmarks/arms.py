"""The arms of the learning benchmarks: what is asked, how votes become rewards, how it is learned.

All arms sample the same number of completions of the same questions with the same learner; only
what their name says differs. `paper` has every knob as published but the learning rate: that of the
published runs is for another model, so its updates together may move the weights as far as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random as Dice
from typing import Literal

from ttrl_client.types import Learning

from adapters.batch import LearnerConfig
from adapters.credit import CreditRules
from adapters.estimators import Estimator, Options, make_estimator
from adapters.estimators.controls import FormatOnly, Inverted, Oracle, Random
from benchmarks.weak_additions import WEAK_ADDITION
from demo.model_lessons import SYSTEM_PROMPTS
from demo.questions import ADDITION, SUBTRACTION, VIEWS, Question

Views = Literal["one", "templates", "instructions"]
Estimating = Callable[[Question, Dice], Estimator]  # controls know the question, others do not

PROMPTS_PER_STEP = 8
LEARNING_RATE = 1e-3
OPTIONS = Options(min_answers=8)
SAMPLES = 33
DEFAULT_SAMPLES = Learning().samples_per_prompt
INCUMBENT_VOTES = Learning().incumbent_votes
ROLLOUTS = 30 * PROMPTS_PER_STEP * SAMPLES
STOP_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to learn."""

    name: str
    estimating: Estimating
    views: Views = "one"
    kind: str = ADDITION
    samples: int = SAMPLES  # of a prompt, at most
    wave: int | None = None  # drawn at a time, until the vote is decided; None: all at once
    rollouts: int = ROLLOUTS  # the run ends with the step that reaches them
    steady: bool = False  # visits of a prompt must agree with the first one on its label
    incumbent_votes: int = 0  # until a prompt has a label, so many of its samples back it
    rules: CreditRules = CreditRules()
    learner: LearnerConfig | None = None  # None: as all others
    ahead: bool = False  # a batch is sampled while the one before is learned from
    foresees: bool = False  # as a cycle, it learns nothing that the gate would refuse in any case
    average: bool = False  # it ends with the mean of its good steps' weights, as a cycle does

    @property
    def config(self) -> LearnerConfig:
        """What it learns with."""
        return self.learner or LearnerConfig(learning_rate=LEARNING_RATE)

    def phrasings(self, question: Question) -> list[list[dict[str, str]]]:
        """The chats that the samples of a question are split over; the first is as it was asked."""
        asked = [{"role": "user", "content": question.text}]
        if self.views == "templates":
            others = [view for view in question.views if view != question.text]
            return [asked, *([{"role": "user", "content": text}] for text in others)]
        if self.views == "instructions":
            return [
                asked,
                *([{"role": "system", "content": s}, *asked] for s in SYSTEM_PROMPTS[:2]),
            ]
        return [asked]


def voting(name: str) -> Estimating:
    """An estimator of the product: it knows neither question nor answer."""
    return lambda _question, _dice: make_estimator(name, OPTIONS)


def oracle(question: Question, _dice: Dice) -> Estimator:
    """Knows the answer."""
    return Oracle(question.answer)


def random_rewards(_question: Question, dice: Dice) -> Estimator:
    """Knows nothing."""
    return Random(dice)


def format_only(_question: Question, _dice: Dice) -> Estimator:
    """Any answer will do."""
    return FormatOnly()


def inverted(_question: Question, _dice: Dice) -> Estimator:
    """Anything but the majority."""
    return Inverted()


PAPER_UPDATES = 8
PAPER_STEPS = 15  # 8 x 64 samples each: about as many rollouts as 30 steps of 8 x 33
PAPER = LearnerConfig(
    learning_rate=5e-4,  # cosine: over 120 updates it moves about as far as 1e-3 in 30
    schedule="cosine",
    warmup=0.03,
    total_updates=PAPER_STEPS * PAPER_UPDATES,
    weight_decay=0.01,
    minibatches=PAPER_UPDATES,
    clip_high=0.2,
    tis_cap=None,
    kl_coef=0.001,
)

ADDING: Sequence[Arm] = (
    Arm("majority", voting("majority")),
    Arm(
        "default",
        voting("harmony"),
        views="templates",
        samples=DEFAULT_SAMPLES,
        steady=True,
        incumbent_votes=INCUMBENT_VOTES,
        average=True,
    ),
    Arm("oracle", oracle),
    Arm(
        "generic_views",
        voting("harmony"),
        views="instructions",
        samples=DEFAULT_SAMPLES,
        steady=True,
        incumbent_votes=INCUMBENT_VOTES,
        average=True,
    ),
    Arm("majority_strict", voting("majority_strict")),
    Arm(
        "paper",
        voting("majority_strict"),
        samples=64,
        rules=CreditRules(advantage="grpo", train_samples=32, downsample="first"),
        learner=PAPER,
    ),
    Arm("random", random_rewards, rollouts=ROLLOUTS // 3),
    Arm("format_only", format_only, rollouts=ROLLOUTS // 3),
)
WITHOUT_PRIOR: Sequence[Arm] = tuple(
    replace(arm, name=f"{name}_{arm.name}", kind=kind, rollouts=ROLLOUTS // 2)
    for name, kind in (("no_prior", SUBTRACTION), ("weak", WEAK_ADDITION))
    for arm in ADDING
    if arm.name in ("majority", "default")
)
CYCLES: Sequence[Arm] = tuple(
    replace(arm, name=arm.name.replace("default", "cycle"), foresees=True)
    for arm in WITHOUT_PRIOR
    if arm.name.endswith("default")
)
ARMS: dict[str, Arm] = {arm.name: arm for arm in (*ADDING, *WITHOUT_PRIOR, *CYCLES)}
NUM_VIEWS = len(VIEWS[ADDITION].templates)
