"""One step in the tree, linked to the step before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Path:
    """A partial solution: its last step, and the path before it. The stem has no parent.

    What the models give is set on creation (`text`, `num_tokens`, `cut`, `ended`, `source`) and by the
    PRM (`reward`). What the reference decides is `value`, `state` and `ending`.
    """

    parent: Path | None
    text: str
    num_tokens: int
    cut: bool = False
    """Cut by a token limit."""
    ended: bool = False
    """The policy ended the sequence here."""
    source: Any = None
    """What the models know it by: a recorded node, or token ids."""
    reward: float | None = None
    value: float | None = None
    state: str = "kept"
    """Its fate, in the words of the trace: kept, dropped, finished, duplicate, length-cut, empty, stopped.
"""
    ending: str | None = None
    """Why the path ended here: finished, length-cut, step-limit, dead-end. None: it can go on."""

    def line(self) -> list[Path]:
        """The steps from the stem, exclusive, to here."""
        steps: list[Path] = []
        here: Path | None = self
        while here is not None and here.parent is not None:
            steps.append(here)
            here = here.parent
        return steps[::-1]

    def steps(self) -> list[str]:
        """The texts of the path; an end of sequence without text is no step."""
        return [step.text for step in self.line() if step.text]

    def rewards(self) -> list[float]:
        """The PRM's scores of the path's steps."""
        return [step.reward for step in self.line() if step.reward is not None]

    def depth(self) -> int:
        """Steps from the stem."""
        return len(self.line())

    def path_tokens(self) -> int:
        """Policy tokens along the path."""
        return sum(step.num_tokens for step in self.line())

    def end(self, ending: str) -> None:
        """Ends the path here, with the state that belongs to the ending."""
        self.ending = ending
        states = {"finished": "finished", "length-cut": "length-cut", "low-confidence": "dropped"}
        self.state = states.get(ending, "stopped")


def stem() -> Path:
    """The path that all others start from."""
    return Path(parent=None, text="", num_tokens=0)
