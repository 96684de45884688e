"""Particle filtering (arXiv 2502.01618, algorithm 1), with its_hub's weights."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from ..expand import drop, end_dead_ends, expand, keep
from ..options import Options
from ..path import Path, stem
from ..philox import resampling_draws
from ..requests import Asking

_CLIP = 1e-7


def run(problem: str, options: Options) -> Asking[list[Path]]:
    """N particles write a step each; then N of them are drawn by the odds of their values."""
    particles, round_index = [stem()] * options.n, 0
    while True:
        going_on = [(particle, 1) for particle in particles if not particle.ending]
        expansion = yield from expand(going_on, options)
        particles = [particle for particle in particles if particle.ending]
        for path, children in expansion.families:
            particles += children or [path]
        end_dead_ends(expansion)
        drawn = resampled(particles, resampling_draws(options.seed, problem, round_index, options.n))
        _settle(particles, drawn, parents={id(path) for path, children in expansion.families if children})
        particles, round_index = drawn, round_index + 1
        if all(particle.ending for particle in particles):
            return particles


def _settle(particles: list[Path], drawn: list[Path], parents: set[int]) -> None:
    """A path is dropped if no particle at it was drawn, unless another particle went on from it."""
    kept = {id(particle) for particle in drawn}
    for particle in particles:
        if id(particle) in kept:
            keep(particle)
        elif id(particle) not in parents:
            drop(particle)


def resampled(particles: list[Path], draws: list[float]) -> list[Path]:
    """As many particles as draws, in the order of `particles`."""
    values = [min(max(particle.value or 0.0, _CLIP), 1 - _CLIP) for particle in particles]
    sums = list(accumulate(value / (1 - value) for value in values))
    picks = [min(bisect_right(sums, draw * sums[-1]), len(sums) - 1) for draw in draws]
    return [particles[index] for index in sorted(picks)]
