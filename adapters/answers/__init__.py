"""Final answers: found in a text (`extract`), and put into classes of equal ones (`Equivalence`).

Everything here reads text that a model wrote, so it is hostile: inputs are bounded, nothing raises,
and what may hang (math-verify, on sympy) runs in processes that are killed at a deadline.
"""

from adapters.answers.equivalence import DEFECTS, Equivalence
from adapters.answers.extraction import extract
from adapters.answers.spec import AnswerKind, AnswerSpec

__all__ = ["DEFECTS", "AnswerKind", "AnswerSpec", "Equivalence", "extract"]
