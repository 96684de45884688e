"""Diverse verifier tree search (Beeching et al.; compute-optimal-tts): N/M independent trees of width M."""

from __future__ import annotations

from ..expand import drop, end_dead_ends, expand, keep, ranked
from ..options import Options
from ..path import Path, stem
from ..requests import Asking, Together


def run(problem: str, options: Options) -> Asking[list[Path]]:
    """The trees do not depend on each other; each gives a solution."""
    return (yield Together([_tree(options) for _ in range(options.kept)]))


def _tree(options: Options) -> Asking[Path]:
    path = stem()
    while True:
        expansion = yield from expand([(path, options.beam_width)], options)
        if end_dead_ends(expansion):
            return path
        path, *others = ranked(expansion.candidates)
        keep(path)
        for other in others:
            drop(other)
        if path.ending:
            return path
