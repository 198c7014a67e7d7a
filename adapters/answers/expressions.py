r"""What a formula is worth at sample points: settles nearly all comparisons without a computer
algebra system.

Two formulas that differ at a point are different, and two that agree to 12 digits at several
unrelated points are equal for all purposes here (Schwartz-Zippel; the points are irrational). A
formula that is not understood, or that could be read in two ways (`1/2x`, `\log 8`, `f(x)`), has no
value and is left to the judge. All arithmetic is on floats, so a tower of powers overflows at once
instead of being computed.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

MAX_TOKENS = 250
MAX_DEPTH = 40
POINTS = 3
CLOSE = 1e-11  # relative
APART = 1e-6  # relative; between the two nothing is settled
HUGE = 1e290  # not evaluated any further: differences and ratios of smaller values never overflow

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<letter>[a-zA-Z])"
    r"|(?P<sign>[-+*/^(){}\[\]|!_=]))"
)
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    r"\sin": cmath.sin, r"\cos": cmath.cos, r"\tan": cmath.tan, r"\ln": cmath.log,
    r"\exp": cmath.exp, r"\sinh": cmath.sinh, r"\cosh": cmath.cosh, r"\tanh": cmath.tanh,
    r"\arcsin": cmath.asin, r"\arccos": cmath.acos, r"\arctan": cmath.atan,
    r"\sec": lambda z: 1 / cmath.cos(z), r"\csc": lambda z: 1 / cmath.sin(z),
    r"\cot": lambda z: 1 / cmath.tan(z),
}  # fmt: skip
_CONSTANTS = {r"\pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_VARIABLES = frozenset(
    (
        r"\alpha", r"\beta", r"\gamma", r"\delta", r"\epsilon", r"\theta", r"\lambda", r"\mu",
        r"\phi", r"\omega", r"\rho", r"\sigma", r"\tau", r"\varphi", r"\psi", r"\Delta",
        r"\Omega", r"\Phi", r"\ell",
    )
)  # fmt: skip
_PRODUCTS = frozenset(("*", r"\cdot", r"\times"))
_APPLIED = frozenset("fgh")  # letters that name functions more often than factors


class _Unclear(Exception):
    """Not understood, or not in one way only."""


@dataclass(frozen=True, slots=True)
class Values:
    """A formula's values at the sample points, all below `HUGE`; of an equation those of
    left - right.
    """

    at: tuple[complex, ...]
    is_equation: bool


def settle(first: str, second: str) -> bool | None:
    """Whether two formulas are equal; None if that cannot be told from values."""
    one, other = values(first), values(second)
    if one is None or other is None or one.is_equation != other.is_equation:
        return None
    if one.is_equation:
        return _proportional(one.at, other.at)
    return _agree(one.at, other.at)


@lru_cache(maxsize=16_384)
def values(formula: str) -> Values | None:
    """The values of a formula, as written by `canonical`; None if it is not understood."""
    try:
        tokens = list(_tokens(formula))
        if not tokens:
            return None
        return Values(
            tuple(_Reader(tokens, point).formula() for point in range(POINTS)),
            is_equation="=" in tokens,
        )
    except (_Unclear, ArithmeticError, ValueError):
        return None


def _agree(one: Sequence[complex], other: Sequence[complex]) -> bool | None:
    distances = [abs(a - b) / max(abs(a), abs(b), 1e-300) for a, b in zip(one, other, strict=True)]
    if all(distance < CLOSE for distance in distances):
        return True
    return False if max(distances) > APART else None


def _proportional(one: Sequence[complex], other: Sequence[complex]) -> bool | None:
    if any(abs(value) < 1e-9 for value in (*one, *other)):
        return None
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return _agree(ratios, [ratios[0]] * len(ratios))


def _tokens(formula: str) -> Iterator[str]:
    position, end = 0, len(formula.rstrip())
    for _ in range(MAX_TOKENS):
        if position >= end:
            return
        match = _TOKEN.match(formula, position)
        if match is None:
            raise _Unclear
        yield match[0].strip()
        position = match.end()
    raise _Unclear


class _Reader:
    """Reads a formula by recursive descent, evaluating as it goes."""

    def __init__(self, tokens: Sequence[str], point: int) -> None:
        self._tokens = tokens
        self._at = 0
        self._point = point
        self._depth = 0

    def formula(self) -> complex:
        value = self._sum()
        if self._next() == "=":
            self._take("=")
            value -= self._sum()
        if self._at < len(self._tokens):
            raise _Unclear
        if not abs(value) < HUGE:  # nor is what is infinite or not a number
            raise OverflowError
        return value

    def _next(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._next()
        if not token or (expected and token != expected):
            raise _Unclear
        self._at += 1
        return token

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Unclear

    def _sum(self) -> complex:
        self._descend()
        value = self._product()
        while self._next() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            value += sign * self._product()
        self._depth -= 1
        return value

    def _product(self) -> complex:
        sign = 1
        while self._next() in ("+", "-"):
            sign = sign if self._take() == "+" else -sign
        value = self._power()
        divided = False
        while True:
            token = self._next()
            if token in _PRODUCTS:
                self._take()
                value *= self._signed_power()
            elif token == "/":
                self._take()
                value /= self._signed_power()
                divided = True
            elif token and token not in "+-=)}]|!^_":
                if divided or (token == r"\frac" and self._tokens[self._at - 1][-1].isdigit()):
                    raise _Unclear  # 1/2x; and 2\frac{1}{3} may be a sum
                if token[0].isdigit():
                    raise _Unclear
                value *= self._power()
            else:
                return sign * value

    def _signed_power(self) -> complex:
        sign = 1
        while self._next() in ("+", "-"):
            sign = sign if self._take() == "+" else -sign
        return sign * self._power()

    def _power(self) -> complex:
        value = self._atom()
        while self._next() == "!":
            self._take()
            value = _factorial(value)
        if self._next() == "^":
            self._take()
            value = value ** self._exponent()
        if self._next() == "!":
            raise _Unclear
        return value

    def _exponent(self) -> complex:
        if self._next() == "{":
            return self._braced()
        sign = -1 if self._next() == "-" else 1
        if self._next() in ("+", "-"):
            self._take()
        if self._next() == "(":
            return sign * self._atom()
        token = self._next()
        if token[:1].isdigit() or token in _CONSTANTS or (len(token) == 1 and token.isalpha()):
            return sign * self._atom()
        raise _Unclear

    def _braced(self) -> complex:
        self._take("{")
        value = self._sum()
        self._take("}")
        return value

    def _atom(self) -> complex:
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            if self._next() == "_":
                raise _Unclear  # another base
            return complex(float(token))
        if token in "([{":
            value = self._sum()
            self._take({"(": ")", "[": "]", "{": "}"}[token])
            return value
        if token == "|":
            value = abs(self._sum())
            self._take("|")
            return complex(value)
        if token[0] == "\\" and token not in _VARIABLES and token not in _CONSTANTS:
            return self._command(token)
        return self._name(token)

    def _name(self, token: str) -> complex:
        if self._next() == "_":
            self._take()
            index = self._take()
            if index == "{":
                index = self._take()
                self._take("}")
            token = f"{token}_{index}"
        elif token in _CONSTANTS:
            return _CONSTANTS[token]
        if not (token[0].isalpha() or token[0] == "\\"):
            raise _Unclear
        if token in _APPLIED and self._next() == "(":
            raise _Unclear
        return _sample(token, self._point)

    def _command(self, token: str) -> complex:
        if token == r"\frac":
            top = self._braced()
            return top / self._braced()
        if token == r"\binom":
            return _binomial(self._braced(), self._braced())
        if token == r"\sqrt":
            degree = 2 + 0j
            if self._next() == "[":
                self._take()
                degree = self._sum()
                self._take("]")
            return _root(self._braced(), degree)
        if token == r"\log" and self._next() == "_":
            self._take()
            base = self._braced() if self._next() == "{" else self._atom()
            return self._argument(cmath.log) / cmath.log(base)
        if token in _FUNCTIONS:
            return self._argument(_FUNCTIONS[token])
        raise _Unclear

    def _argument(self, function: Callable[[complex], complex]) -> complex:
        r"""The argument of `\sin`: one bracket, or one factor; more of them could mean either."""
        self._descend()
        power = 1 + 0j
        if self._next() == "^":
            self._take()
            power = self._exponent()
            if power.real < 0:
                raise _Unclear  # the inverse function, or the reciprocal
        bracketed = self._next() in ("(", "{", "[")
        value = self._atom() if bracketed else self._factors()
        if bracketed and self._next() == "^":
            raise _Unclear
        self._depth -= 1
        return function(value) ** power

    def _factors(self) -> complex:
        r"""`2x` and `\pi` of `\sin 2x`: numbers and names up to the next operator."""
        value = self._power()
        while (token := self._next()) and (len(token) == 1 and token.isalpha() or token == r"\pi"):
            value *= self._power()
        if self._next() in ("(", r"\frac", r"\sqrt", "/"):
            raise _Unclear
        return value


def _sample(name: str, point: int) -> complex:
    """An irrational value for a variable: small, then negative, then larger."""
    seed = sum(ord(char) * (index + 1) for index, char in enumerate(name))
    value = (seed * math.sqrt(2) + (point + 1) * math.sqrt(7)) % 1.7
    return complex((0.4 + value, -0.4 - value, 2.3 + value)[point])


def _root(value: complex, degree: complex) -> complex:
    real = abs(value.imag) < 1e-12 and abs(degree.imag) < 1e-12
    if real and value.real < 0 and degree.real % 2 == 1:
        return complex(-((-value.real) ** (1 / degree.real)))
    return value ** (1 / degree)


def _natural(value: complex) -> int:
    number = round(value.real)
    if abs(value - number) > 1e-9 or not 0 <= number <= 150:
        raise _Unclear
    return number


def _factorial(value: complex) -> complex:
    return complex(float(math.factorial(_natural(value))))


def _binomial(top: complex, bottom: complex) -> complex:
    return complex(float(math.comb(_natural(top), _natural(bottom))))
