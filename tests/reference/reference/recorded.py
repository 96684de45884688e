"""A strategy over a recorded tree: the recorded children are the policy, the recorded rewards the PRM."""

from __future__ import annotations

from collections import deque
from typing import Any

from .path import Path
from .record import Line, Node
from .requests import (
    Asking,
    Choose,
    Embed,
    LookAhead,
    LowestWindows,
    ReadAnswers,
    Score,
    Together,
    Write,
    WriteWhole,
)
from .selections import Candidate, names, select, smaller_budgets
from .strategies import STRATEGIES
from .strategies.dora import explained


class Disagreement(Exception):
    """The search and the record part ways, so that the search cannot go on."""


class Replay:
    """One problem; without `embed` all paths are alike. `choices` counts the decisions that were compared,
    `close` those of DORA that only rounding parts."""

    def __init__(self, line: Line, embed: Any) -> None:
        self.line, self.embed = line, embed
        self.choices = self.close = 0
        self._all_cut = False
        self._last_id = 0
        self._written: list[Path] = []
        self._whole = 0
        self._children: dict[int, deque[Node]] = {}
        for node in line.nodes[1:]:
            self._children.setdefault(node.parent or 0, deque()).append(node)
        self._parents = set(self._children)
        self._stem_children = tuple(self._children.get(0, ()))
        self._found: list[str] = []

    def differences(self) -> list[str]:
        """Every difference between the reference and the record, a sentence each."""
        line, options = self.line, self.line.options
        search = STRATEGIES[options.strategy].run(line.problem, options)
        try:
            solutions = self._run(search)
            self._compare_tree()
            self._compare_solutions(solutions)
        except Disagreement as difference:
            self._found.append(f"{line.id}: {difference}")
        self._compare_verdicts()
        return self._found

    # What the strategy asks for.

    def _run(self, search: Asking[Any]) -> Any:
        answer = None
        while True:
            try:
                request = search.send(answer)
            except StopIteration as end:
                return end.value
            answer = self._answer(request)

    def _answer(self, request: Any) -> Any:
        match request:
            case Together(parts):
                return [self._run(part) for part in parts]
            case Write(parent, count, attempt):
                if attempt == 0:
                    self._all_cut = parent.parent is None and self._nothing_but_cut(count)
                return [self._take(parent) for _ in range(count)]
            case WriteWhole(stem, count):
                return [self._take_whole(stem) for _ in range(count)]
            case ReadAnswers(solutions):
                return [self.line.solutions[index].answer for index in range(len(solutions))]
            case LowestWindows(solutions):
                return [self._lowest_window(index) for index in range(len(solutions))]
            case Score(paths):
                return [self._number(path, "reward") for path in paths]
            case LookAhead(paths):
                return [self._number(path, "value") for path in paths]
            case Embed(paths):
                if self.embed is None:
                    return [[1.0]] * len(paths)
                return self.embed.embeddings(self.line, paths)
            case Choose(paths, shares, widths):
                return self._choose(paths, shares, widths)
        raise TypeError(f"the replay cannot answer {request}")

    def _take(self, parent: Path) -> Path:
        node_id = parent.source.id if parent.source else 0
        children = self._children.get(node_id)
        if not children:
            raise Disagreement(
                f"node {node_id}: the reference writes another child of it, the record has no more"
            )
        return self._path(parent, children.popleft())

    def _path(self, parent: Path, node: Node) -> Path:
        if node.id < self._last_id:
            raise Disagreement(f"node {node.id} was written before node {self._last_id}, here after it")
        self._last_id = node.id
        cut = self._was_cut(parent, node)
        path = Path(parent, node.text, node.num_tokens, cut, self._has_ended(node, cut), node)
        self._written.append(path)
        return path

    def _has_ended(self, node: Node, cut: bool) -> bool:
        """Whether the policy ended the sequence: of a dropped step only its lack of text tells. Where a
        path that ended can still be dropped, a dropped one without children counts as ended; it makes no
        difference where it was not drawn."""
        if node.state == "finished" or not (node.text or cut or node.state == "empty"):
            return True
        later = STRATEGIES[self.line.options.strategy].drops_ended
        return later and node.state == "dropped" and node.id not in self._parents

    def _was_cut(self, parent: Path, node: Node) -> bool:
        """Whether a token limit cut the step: the record does not say so of a first step that was better
        than nothing."""
        at_limit = node.num_tokens == self._limit(parent)
        return at_limit and (self._all_cut or (node.state == "length-cut" and node.reward is None))

    def _nothing_but_cut(self, count: int) -> bool:
        """Whether the next family of the stem has all its expansions, and no step that the search could go
        on from."""
        options = self.line.options
        if len(self._stem_children) == options.n and options.max_retries > 1:
            return False
        size = count * options.max_retries
        family = list(self._children.get(0, ()))[:size]
        limit = self._limit(Path(None, "", 0))
        texts: set[str] = set()
        for node in family:
            if node.state == "empty" or (node.state == "length-cut" and not node.text):
                continue
            ended_here = node.num_tokens == limit and node.state in ("length-cut", "duplicate", "dropped")
            if not ended_here or (node.reward is not None) == (node.text in texts):
                return False
            texts.add(node.text)
        return len(family) == size

    def _limit(self, parent: Path) -> int:
        """The tokens that a child may have."""
        options = self.line.options
        return min(options.max_step_tokens, options.max_tokens - parent.path_tokens())

    def _take_whole(self, stem: Path) -> Path:
        if self._whole == len(self.line.solutions):
            raise Disagreement(f"the reference writes solution {self._whole}, the record has no more")
        solution = self.line.solutions[self._whole]
        self._whole += 1
        chain, node = [], self.line.nodes[solution.node]
        while node.parent is not None:
            chain.append(node)
            node = self.line.nodes[node.parent]
        path = stem
        for node in reversed(chain):
            if node not in self._children[node.parent or 0]:
                raise Disagreement(f"node {node.id} belongs to two whole solutions")
            self._children[node.parent or 0].remove(node)
            path = self._path(path, node)
        if path is stem:
            path = Path(None, "", 0)
        path.cut = solution.ending == "length-cut"
        return path

    def _lowest_window(self, index: int) -> float:
        confidence = self.line.solutions[index].confidence
        if confidence is None:
            raise Disagreement(
                f"solution {index}: the reference needs its lowest window, the record has none"
            )
        return confidence["lowest_window"]

    def _number(self, path: Path, name: str) -> float:
        number = getattr(path.source, name)
        if number is None:
            raise Disagreement(
                f"node {path.source.id}: the reference needs its {name}, the record has none"
            )
        return number

    def _choose(self, paths: list[Path], shares: list[float], widths: list[int]) -> list[int]:
        there = [len(self._children.get(path.source.id, ())) for path in paths]
        if there != widths and explained(shares, widths, there, self.line.options.n):
            self.close += 1
            return there
        return widths

    # What the search came to.

    def _differ(self, what: str, reference: Any, recorded: Any) -> None:
        self.choices += 1
        if reference != recorded:
            self._found.append(f"{self.line.id}: {what}: {reference!r} here, {recorded!r} in the record")

    def _compare_tree(self) -> None:
        for node_id, children in self._children.items():
            for node in children:
                self._found.append(
                    f"{self.line.id}: node {node.id}, a child of {node_id}: the reference does not write it"
                )
        for path in self._written:
            node = path.source
            place = f"depth {node.depth}: node {node.id}: "
            self._differ(place + "state", path.state, node.state)
            self._differ(place + "depth", path.depth(), node.depth)
            self._differ(place + "reward", path.reward, node.reward)
            if not _close(path.value, node.value):
                self._differ(place + "value", path.value, node.value)
        tokens = sum(node.num_tokens + node.lookahead_tokens for node in self.line.nodes)
        self._differ("policy tokens", tokens, self.line.policy_tokens)

    def _compare_solutions(self, solutions: list[Path]) -> None:
        recorded = self.line.solutions
        here = [path.source.id if path.source else 0 for path in solutions]
        self._differ("solutions' last nodes", here, [solution.node for solution in recorded])
        for index, (path, solution) in enumerate(zip(solutions, recorded)):
            place = f"solution {index}: "
            self._differ(place + "ending", path.ending, solution.ending)
            self._differ(place + "steps", path.steps(), solution.steps)
            self._differ(place + "scores", path.rewards(), solution.scores)
            self._differ(place + "tokens", path.path_tokens(), solution.num_tokens)

    def _compare_verdicts(self) -> None:
        line = self.line
        solutions = [
            Candidate(
                solution.answer, solution.scores, solution.confidence, solution.ending != "low-confidence"
            )
            for solution in line.solutions
        ]
        has_prm = STRATEGIES[line.options.strategy].has_prm
        given_by = (line.options.selection or "").rsplit("-", 1)[0]
        confident = line.options.confidence_bar is not None or given_by in (
            "self-certainty",
            "tail-confidence",
        )
        expected = names(has_prm, confident)
        self._compare_selections("", expected, solutions, line.verdicts)
        budgets = smaller_budgets(line.options)
        self._differ("smaller budgets", [n for n, _ in budgets], [row["n"] for row in line.by_n])
        for (n, count), row in zip(budgets, line.by_n):
            self._compare_selections(f"N' = {n}: ", expected, solutions[:count], row["verdicts"])
        selection = line.options.selection or ("last-vote" if has_prm else "majority")
        self._differ("selection", selection, line.selection)
        given = select(selection, solutions)
        self._differ("answer", None if given is None else solutions[given].answer, line.prediction)
        on_path: list[int] = []
        here = None if given is None else line.nodes[line.solutions[given].node]
        while here is not None:
            on_path.append(here.id)
            here = None if here.parent is None else line.nodes[here.parent]
        self._differ("chosen nodes", sorted(on_path), [node.id for node in line.nodes if node.chosen])

    def _compare_selections(
        self, place: str, expected: list[str], solutions: list[Candidate], recorded: list[dict[str, Any]]
    ) -> None:
        self._differ(place + "selections", expected, [verdict["selection"] for verdict in recorded])
        for verdict in recorded:
            index = select(verdict["selection"], solutions)
            self._differ(f"{place}{verdict['selection']}", index, verdict["solution"])
            answer = None if index is None else solutions[index].answer
            self._differ(f"{place}{verdict['selection']} answer", answer, verdict["prediction"])


def _close(here: float | None, there: float | None) -> bool:
    """Equal but for the order of a sum."""
    if here is None or there is None:
        return here is there
    return abs(here - there) <= 1e-12 * max(abs(here), abs(there))
