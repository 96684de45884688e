"""DORA (arXiv 2506.15707, section 4), with the policy's own hidden states as embeddings."""

from __future__ import annotations

import math

from ..expand import drop, end_dead_ends, expand, keep
from ..options import Options
from ..path import Path, stem
from ..requests import Asking, Choose, Embed


def run(problem: str, options: Options) -> Asking[list[Path]]:
    """Every round writes N candidates, until N paths have ended."""
    wanted, solutions = [(stem(), options.n)], []
    while wanted:
        expansion = yield from expand(wanted, options)
        solutions += end_dead_ends(expansion)
        going_on = []
        for path in expansion.candidates:
            if path.ending:
                keep(path)
                solutions.append(path)
            else:
                going_on.append(path)
        if len(solutions) >= options.n:
            for path in going_on:
                drop(path)
            break
        wanted = yield from _widths(going_on, options)
    return solutions[: options.n]


def _widths(paths: list[Path], options: Options) -> Asking[list[tuple[Path, int]]]:
    """The children of each path; those without one are dropped."""
    first = softmax([path.value or 0.0 for path in paths], options.balance_temperature)
    left = [path for path, share in zip(paths, first) if round(share * options.n) > 0]
    widths: list[int] = []
    if left:
        embeddings = yield Embed(left)
        weights = softmax([path.value or 0.0 for path in left], options.balance_temperature)
        unlike = uniqueness(embeddings, options.similarity_temperature)
        product = [weight * gamma for weight, gamma in zip(weights, unlike)]
        counts = [options.n * part / sum(product) for part in product]
        widths = yield Choose(left, counts, rounded(counts, options.n))
    chosen = {id(path): width for path, width in zip(left, widths) if width}
    for path in paths:
        if id(path) not in chosen:
            drop(path)
    return [(path, chosen[id(path)]) for path in left if id(path) in chosen]


def softmax(values: list[float], temperature: float) -> list[float]:
    """Σ = 1."""
    top = max(values, default=0.0)
    weights = [math.exp((value - top) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def uniqueness(embeddings: list[list[float]], temperature: float) -> list[float]:
    """γ: the diagonal of the softmax over the rows of cosine similarities."""
    norms = [math.sqrt(sum(x * x for x in row)) for row in embeddings]
    gammas = []
    for index, (row, norm) in enumerate(zip(embeddings, norms)):
        similar = [
            sum(a * b for a, b in zip(row, other)) / (norm * other_norm)
            for other, other_norm in zip(embeddings, norms)
        ]
        gammas.append(softmax(similar, temperature)[index])
    return gammas


def rounded(counts: list[float], n: int) -> list[int]:
    """To integers, ties to even; then the first N of the list of paths that often, repeated."""
    listed = [index for index, count in enumerate(counts) for _ in range(round(count))]
    first = [listed[place % len(listed)] for place in range(n)] if listed else []
    return [first.count(index) for index in range(len(counts))]


SAME = 1e6
"""From this `similarity_temperature` on, γ is the same for all paths to within 2e-6, whatever their
embeddings."""

ERROR = 2e-3
"""The relative error of a count before rounding that embeddings in f32 may cause: cosines differ by some
1e-6 between two implementations, and the softmax divides them by 0.01; a half of a share is decided by far
more than this."""


def explained(counts: list[float], widths: list[int], recorded: list[int], n: int) -> bool:
    """Whether recorded widths differ from `widths` only by a count so near to a half that the error can
    turn it."""
    near = [abs(count - int(count) - 0.5) <= ERROR * max(count, 1.0) for count in counts]
    one_apart = all(abs(here - there) <= sum(near) for here, there in zip(widths, recorded))
    return any(near) and sum(recorded) == n and one_apart
