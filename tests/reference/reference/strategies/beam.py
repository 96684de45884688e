"""Beam search: compute-optimal-tts' (`paper`; arXiv 2502.06703, section 2.2) and search-and-learn's."""

from __future__ import annotations

from ..expand import drop, end_dead_ends, expand, keep, ranked
from ..options import Options
from ..path import Path, stem
from ..requests import Asking


def run(problem: str, options: Options) -> Asking[list[Path]]:
    """The search of `beam_mode`."""
    modes = {"paper": paper, "search-and-learn": search_and_learn}
    return modes[options.beam_mode](options)


def paper(options: Options) -> Asking[list[Path]]:
    """An ended path holds one of the N/M slots."""
    wanted, solutions = [(stem(), options.n)], []
    while wanted:
        expansion = yield from expand(wanted, options)
        solutions += end_dead_ends(expansion)
        best = ranked(expansion.candidates)[: max(options.kept - len(solutions), 0)]
        wanted = []
        for path in expansion.candidates:
            if path not in best:
                drop(path)
                continue
            keep(path)
            if path.ending:
                solutions.append(path)
            else:
                wanted.append((path, options.beam_width))
    return solutions


def search_and_learn(options: Options) -> Asking[list[Path]]:
    """Ended paths leave; the others share N children round-robin."""
    wanted, solutions = [(stem(), options.n)], []
    while wanted:
        expansion = yield from expand(wanted, options)
        solutions += end_dead_ends(expansion)
        for path in expansion.candidates:
            if path.ending:
                keep(path)
                solutions.append(path)
        going_on = [path for path in expansion.candidates if not path.ending]
        best = ranked(going_on)[: options.kept]
        kept = [path for path in going_on if path in best]
        for path in going_on:
            if path not in best:
                drop(path)
        wanted = [(path, _share(options.n, len(kept), index)) for index, path in enumerate(kept)]
    solutions.sort(key=lambda path: -(path.value if path.value is not None else -1.0))
    return solutions[: options.n]


def _share(total: int, count: int, index: int) -> int:
    return total // count + (index < total % count)
