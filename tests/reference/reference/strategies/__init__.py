"""The strategies of the reference, a file each. A new one is a function `run(problem, options)` in a file
of its own and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..options import Options
from ..path import Path
from ..requests import Asking
from . import beam, dora, dvts, particle_filtering, rebase, whole


@dataclass(frozen=True)
class Row:
    """One strategy."""

    run: Callable[[str, Options], Asking[list[Path]]]
    """From the problem's text and the options to the solutions' last steps, in their order."""
    has_prm: bool = True
    needs_embeddings: Callable[[Options], bool] = lambda options: False
    """Whether a replay needs the policy's hidden states."""
    drops_ended: bool = False
    """A path that ended can be dropped in a later round."""


STRATEGIES = {
    "cot": Row(whole.cot, has_prm=False),
    "majority": Row(whole.majority, has_prm=False),
    "best-of-n": Row(whole.best_of_n),
    "beam": Row(beam.run),
    "dvts": Row(dvts.run),
    "rebase": Row(rebase.run),
    "dora": Row(dora.run, needs_embeddings=lambda options: options.similarity_temperature < dora.SAME),
    "particle-filtering": Row(particle_filtering.run, drops_ended=True),
}
