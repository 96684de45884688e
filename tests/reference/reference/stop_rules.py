"""When a majority vote or best-of-N stops before N solutions (SEMANTICS.md, "Stopping")."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

_BETA_CONFIDENCE = Fraction(95, 100)
_BAYES_FACTOR = 10.0
_NOT_GIVEN = 0.3


def looks(n: int) -> list[int]:
    """The numbers of solutions, below N, after which a vote with a rule is looked at."""
    return [count for count in range(1, n) if count in (1, 2, 4) or count % 8 == 0]


def settled(rule: str, answers: list[object], n: int) -> bool:
    """Whether no more solutions are needed: `answers` holds the normal forms so far, None for a solution
    without one."""
    counts = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    if not counts:
        return False
    first, second = (*counts, 0)[:2]
    if rule == "unbeatable":
        return first > second + (n - len(answers))
    if rule == "beta":
        return _above_half(first, second) > _BETA_CONFIDENCE
    return bayes_factor(counts) >= _BAYES_FACTOR


def scores_settled(selection: str, scored: list[tuple[object, float]], n: int) -> bool:
    """`unbeatable` where scores select: `scored` holds the normal form and the score of each solution so
    far."""
    given = [(answer, score) for answer, score in scored if answer is not None]
    if not given or not all(0 <= score <= 1 for _, score in given):
        return False
    if selection.endswith("-max"):
        return any(score == 1 for _, score in given)
    sums: Counter[object] = Counter()
    for answer, score in given:
        sums[answer] += score
    first, second = sorted([*sums.values(), 0.0], reverse=True)[:2]
    return first - second > n - len(scored)


def _above_half(a: int, b: int) -> Fraction:
    """∫ Beta(a + 1, b + 1) from ½ to 1, exactly: at most a of a + b + 1 fair coins."""
    coins = a + b + 1
    return Fraction(sum(math.comb(coins, heads) for heads in range(a + 1)), 2**coins)


def bayes_factor(counts: list[int]) -> float:
    """k P / (1 - P): P is the probability that the first of `counts` is the mode, of k answers with one not
    given."""
    shapes = [count + 1.0 for count in counts] + [_NOT_GIVEN + 1.0]
    p = _is_largest(shapes)
    return len(shapes) * p / (1 - p) if p < 1 else math.inf


def _is_largest(shapes: list[float]) -> float:
    """The probability that the first component of a Dirichlet variable is its largest.

    The components are Gamma variables over their sum, so this is ∫ f(x; first) Π F(x; other) dx, by
    Simpson's rule.
    """
    first, *others = shapes
    end = first + 12 * math.sqrt(first) + 40
    pieces = 4000
    width = end / pieces
    total = 0.0
    for piece in range(1, pieces + 1):
        x = piece * width
        density = math.exp((first - 1) * math.log(x) - x - math.lgamma(first))
        below = math.prod(_lower_gamma(shape, x) for shape in others)
        total += density * below * (1 if piece == pieces else 4 if piece % 2 else 2)
    return total * width / 3


def _lower_gamma(shape: float, x: float) -> float:
    """The distribution function of Gamma(shape) at x, by its power series."""
    term = total = 1 / shape
    step = 0
    while term > total * 1e-16:
        step += 1
        term *= x / (shape + step)
        total += term
    return min(math.exp(shape * math.log(x) - x - math.lgamma(shape)) * total, 1.0)
