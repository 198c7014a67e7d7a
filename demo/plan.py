"""All numbers of the demo in one place: who takes part, how much is asked, what may take how long.

The whole must fit in ten minutes on two cores: an answer is about 45 tokens, and the engine makes
2,000 to 7,000 tokens a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ttrl_client.types import Gate, Learning, TenantSettings, View

from demo.questions import ADDITION, SUBTRACTION, VIEWS, Question, additions, subtractions

MODEL = "demo/model"
SERVED_MODEL = "ttrl"
MAX_TOKENS = 64  # the longest right solution has 48

LEARNING = Learning(
    steps=20,
    prompts_per_step=8,
    samples_per_prompt=33,
    max_tokens=MAX_TOKENS,
    temperature=1.0,
    learning_rate=1e-3,
    estimator="harmony",
)
GATE = Gate(probe_prompts=32, samples_per_prompt=48)  # 16 a view: fewer look like disagreement

LEARNED_QUESTIONS = 160  # a tenant; the server keeps a fifth apart as its probe
MEASURED_QUESTIONS = 64
ASKED_AT_ONCE = 32  # requests in flight of the first traffic
MEASURED_AT_ONCE = 12  # requests in flight while measuring, each with many samples

BACKGROUND_QUESTIONS = 400  # a tenant; asked in turn while the cycles run
BRISK_REQUESTS = 560  # asked at the brisk pace, then the rest of the cores is left to learning
BRISK_PER_S = 6.0
GENTLE_PER_S = 1.0
BURST = 8  # requests that come together
BACKGROUND_AT_ONCE = 12

REQUEST_TIMEOUT_S = 60.0
ENGINE_TIMEOUT_S = 240.0
TRAFFIC_TIMEOUT_S = 120.0
MEASURE_TIMEOUT_S = 150.0
ADAPTATION_TIMEOUT_S = 480.0
STOP_TIMEOUT_S = 45.0

SEED = 1


@dataclass(frozen=True, slots=True)
class Player:
    """A tenant of the demo: what it asks, and what is expected of its adaptation."""

    name: str
    kind: str
    draw: Callable[..., list[Question]]
    samples: int  # of each question when it is measured

    def traffic(self) -> tuple[list[Question], list[Question]]:
        """Distinct questions to learn from, and others to ask while that goes on."""
        drawn = self.draw(SEED, LEARNED_QUESTIONS + BACKGROUND_QUESTIONS)
        return drawn[:LEARNED_QUESTIONS], drawn[LEARNED_QUESTIONS:]

    def fresh(self) -> tuple[list[Question], list[Question]]:
        """Questions that are never asked as traffic: to measure before, and others for after."""
        drawn = self.draw(SEED, 2 * MEASURED_QUESTIONS, held_out=True)
        return drawn[:MEASURED_QUESTIONS], drawn[MEASURED_QUESTIONS:]

    def settings(self) -> TenantSettings:
        """Its settings: the other wordings of its questions, and how to learn."""
        view = VIEWS[self.kind]
        return TenantSettings(
            answer="math",
            views=[View(pattern=view.pattern, templates=list(view.templates))],
            learning=LEARNING,
            gate=GATE,
        )


ADDER = Player("adder", ADDITION, additions, samples=16)
NOVICE = Player("novice", SUBTRACTION, subtractions, samples=4)
PLAYERS = (ADDER, NOVICE)
