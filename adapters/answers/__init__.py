"""Final answers: found in a text (`extract`), and put into classes of equal ones (`Equivalence`).

Everything here reads text that a model wrote, so it is hostile: inputs are bounded, no text raises
(where one does, that is a `Defect`), and what may hang (math-verify, on sympy) runs in processes
that are killed at a deadline.
"""

from adapters.answers.defects import Defect, defects_named
from adapters.answers.equivalence import Equivalence
from adapters.answers.extraction import extract
from adapters.answers.spec import AnswerKind, AnswerSpec

__all__ = ["AnswerKind", "AnswerSpec", "Defect", "Equivalence", "defects_named", "extract"]
