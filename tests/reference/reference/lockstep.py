"""Runs many searches at once, so that what they ask of the models is asked in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .requests import Asking, Together


@dataclass(eq=False)
class _Task:
    search: Asking[Any]
    root: int
    """Which of the searches it belongs to."""
    parent: _Task | None = None
    place: int = 0
    """Its part of the parent's `Together`."""
    parts: list[Any] = field(default_factory=list)
    waiting_for: int = 0


def run(searches: list[Asking[Any]], answer: Callable[[list[tuple[int, Any]]], list[Any]]) -> list[Any]:
    """What the searches return. `answer` is given the requests that all of them wait for, each with the
    index of its search, and returns the answers."""
    done: dict[int, Any] = {}
    asked: list[tuple[_Task, Any]] = []

    def go_on(task: _Task, value: Any) -> None:
        try:
            request = task.search.send(value)
        except StopIteration as end:
            finish(task, end.value)
            return
        if not isinstance(request, Together):
            asked.append((task, request))
            return
        task.parts, task.waiting_for = [None] * len(request.parts), len(request.parts)
        for place, part in enumerate(request.parts):
            go_on(_Task(part, task.root, task, place), None)
        if not request.parts:
            go_on(task, [])

    def finish(task: _Task, value: Any) -> None:
        above = task.parent
        if above is None:
            done[task.root] = value
            return
        above.parts[task.place] = value
        above.waiting_for -= 1
        if not above.waiting_for:
            go_on(above, above.parts)

    for place, search in enumerate(searches):
        go_on(_Task(search, place), None)
    while asked:
        batch, asked[:] = list(asked), []
        for (task, _), value in zip(batch, answer([(task.root, request) for task, request in batch])):
            go_on(task, value)
    return [done[place] for place in range(len(searches))]
