"""Policy and PRM in transformers, for searches that sample for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

import torch

from .answers import last_boxed
from .checkpoints import chat_ids, kv_cache, tokenizer_of, weights_in_f32
from .options import Options, Unusable
from .path import Path
from .prm import Scorer
from .requests import Choose, Embed, LookAhead, ReadAnswers, Score, Write, WriteWhole
from .scores import aggregate

_ROWS = 512
"""Rows of a batch."""


@dataclass
class _Branch:
    """Text being written: the tokens before it, and those drawn for it."""

    before: list[int]
    limit: int
    stops_at_delimiter: bool
    temperature: float
    drawn: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False
    """By an end of sequence."""
    delimited: bool = False

    def is_done(self) -> bool:
        """Whether no token follows."""
        return self.ended or self.delimited or len(self.drawn) >= self.limit


class Sampler:
    """Answers what the searches of many problems ask for."""

    def __init__(self, policy: FilePath, prm: FilePath) -> None:
        from transformers import AutoModelForCausalLM

        self._tokenizer = tokenizer_of(policy)
        self._model = weights_in_f32(AutoModelForCausalLM, policy)
        self._scorer = Scorer(prm)
        self._scores: dict[tuple[str, ...], float] = {}
        self._random = torch.Generator()

    def begin(self, problems: list[str], system: str | None, options: Options, seed: int) -> list[Options]:
        """Begins the searches of these problems, and returns the options of each: a solution ends with the
        context."""
        neutral = {
            "temperature": options.sampling["temperature"],
            "top_k": 0,
            "top_p": 1,
            "min_p": 0,
            "repetition_penalty": 1,
        }
        if options.sampling != neutral:
            raise Unusable(f"the reference draws by a temperature only, not by {options.sampling}")
        self._problems, self._options = problems, options
        self._prompts = [chat_ids(self._tokenizer, problem, system) for problem in problems]
        self._random.manual_seed(seed)
        context = self._model.config.max_position_embeddings
        limits = [min(options.max_tokens, context - len(prompt)) for prompt in self._prompts]
        self._each = [replace(options, max_tokens=limit, seed=seed) for limit in limits]
        return self._each

    def answer(self, requests: list[tuple[int, Any]]) -> list[Any]:
        """The answers to requests, each with the index of its problem."""
        branches: dict[int, list[_Branch]] = {}
        rows: list[tuple[int, list[str]]] = []
        ahead: list[tuple[int, Path]] = []
        for place, (problem, request) in enumerate(requests):
            match request:
                case Write(parent, count) | WriteWhole(parent, count):
                    branches[place] = [self._branch(problem, parent, request) for _ in range(count)]
                case Score(paths):
                    rows += [(problem, path.steps()) for path in paths]
                case LookAhead(paths):
                    ahead += [(problem, path) for path in paths]
        self._write([branch for family in branches.values() for branch in family])
        self._score(rows)
        values = self._look_ahead(ahead)
        return [
            self._answer(problem, request, branches.get(place, []), values)
            for place, (problem, request) in enumerate(requests)
        ]

    def _answer(
        self, problem: int, request: Any, branches: list[_Branch], values: dict[Path, float]
    ) -> Any:
        match request:
            case Write(parent):
                return [self._step(parent, branch) for branch in branches]
            case WriteWhole(stem):
                return [self._solution(stem, branch) for branch in branches]
            case Score(paths):
                return [self._scores[self._problems[problem], *path.steps()] for path in paths]
            case LookAhead(paths):
                return [values[path] for path in paths]
            case ReadAnswers(solutions):
                return [self.read_answer(solution) for solution in solutions]
            case Embed(paths):
                return self._embeddings(self._prompts[problem], paths)
            case Choose(_, _, widths):
                return widths
        raise TypeError(f"the sampler cannot answer {request}")

    def read_answer(self, solution: Path) -> str | None:
        """The answer in a solution's text."""
        return last_boxed(self._options.delimiter.join(solution.steps()))

    def _branch(self, problem: int, parent: Path, request: Any) -> _Branch:
        own = parent.source or []
        limit = self._each[problem].max_tokens - len(own)
        is_step = not isinstance(request, WriteWhole)
        if is_step:
            limit = min(limit, self._options.max_step_tokens)
        temperature = 0.0 if isinstance(request, LookAhead) else self._options.sampling["temperature"]
        return _Branch(self._prompts[problem] + own, limit, is_step, temperature)

    def _step(self, parent: Path, branch: _Branch) -> Path:
        cut = not (branch.ended or branch.delimited)
        own = (parent.source or []) + branch.drawn
        return Path(parent, branch.text.strip(), len(branch.drawn), cut, branch.ended, own)

    def _solution(self, stem: Path, branch: _Branch) -> Path:
        """The last step of a chain; the tokens are counted there."""
        path = stem
        for piece in branch.text.split(self._options.delimiter):
            if piece.strip():
                path = Path(path, piece.strip(), 0)
        if path is stem:
            path = Path(stem, "", 0)
        path.num_tokens, path.cut = len(branch.drawn), not branch.ended
        return path

    def _score(self, rows: list[tuple[int, list[str]]]) -> None:
        """Scores what has no score yet; a row gives the scores of all its steps: longer ones first."""
        new: list[tuple[str, list[str]]] = []
        covered = set(self._scores)
        for problem, steps in sorted(rows, key=lambda row: -len(row[1])):
            text = self._problems[problem]
            if (text, *steps) not in covered:
                new.append((text, steps))
                covered |= {(text, *steps[: end + 1]) for end in range(len(steps))}
        for some in _chunks(new):
            for (text, steps), scores in zip(some, self._scorer.scores(some, None)):
                for end, score in enumerate(scores):
                    self._scores.setdefault((text, *steps[: end + 1]), score)

    def _look_ahead(self, paths: list[tuple[int, Path]]) -> dict[Path, float]:
        """SEMANTICS.md, "Lookahead": up to so many greedy steps, until one ends the path, is cut or is
        empty."""
        beyond = {path: path for _, path in paths}
        going_on = paths
        for _ in range(self._options.lookahead):
            branches = [self._branch(problem, beyond[path], LookAhead([])) for problem, path in going_on]
            self._write(branches)
            left = []
            for (problem, path), branch in zip(going_on, branches):
                step = self._step(beyond[path], branch)
                if step.cut or not step.text:
                    continue
                beyond[path] = step
                own = step.source
                marker = self._options.answer_marker
                ended = step.ended or (marker and marker in step.text)
                if not ended and len(own) < self._each[problem].max_tokens:
                    left.append((problem, path))
            going_on = left
        chains = {path: (problem, [s for s in beyond[path].line() if s.text]) for problem, path in paths}
        self._score([(problem, [step.text for step in steps]) for problem, steps in chains.values()])
        values = {}
        for path, (problem, steps) in chains.items():
            texts = [step.text for step in steps]
            rewards = [
                self._scores[self._problems[problem], *texts[: end + 1]] for end in range(len(steps))
            ]
            values[path] = aggregate(self._options.aggregation, rewards)
        return values

    @torch.inference_mode()
    def _embeddings(self, prompt: list[int], paths: list[Path]) -> list[list[float]]:
        """The mean of the final hidden states over each path's own tokens."""
        longest = max(len(path.source) for path in paths)
        pad = self._tokenizer.pad_token_id
        # Padding behind a row changes nothing before it: attention is causal.
        ids = torch.tensor([prompt + path.source + [pad] * (longest - len(path.source)) for path in paths])
        out = self._model(ids, past_key_values=kv_cache(None), use_cache=True, output_hidden_states=True)
        states = out.hidden_states[-1].double()
        return [
            states[row, len(prompt) : len(prompt) + len(path.source)].mean(0).tolist()
            for row, path in enumerate(paths)
        ]

    def _write(self, branches: list[_Branch]) -> None:
        # Branches of like length together: the shorter ones are padded.
        for some in _chunks(sorted(branches, key=lambda branch: len(branch.before))):
            self._write_batch(some)

    @torch.inference_mode()
    def _write_batch(self, branches: list[_Branch]) -> None:
        longest = max(len(branch.before) for branch in branches)
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(b.before)) + b.before for b in branches])
        mask = torch.tensor([[0] * (longest - len(b.before)) + [1] * len(b.before) for b in branches])
        places = (mask.cumsum(1) - 1).clamp(min=0)
        cache, temperature = kv_cache(None), branches[0].temperature
        while branches:
            out = self._model(
                ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            )
            tokens = self._draw(out.logits[:, -1], temperature)
            for branch, token in zip(branches, tokens.tolist()):
                self._add(branch, token)
            left = torch.tensor(
                [i for i, branch in enumerate(branches) if not branch.is_done()], dtype=torch.long
            )
            if len(left) < len(branches):
                branches = [branches[i] for i in left.tolist()]
                cache.batch_select_indices(left)
            ids, places = tokens[left, None], places[left, -1:] + 1
            mask = torch.cat([mask[left], torch.ones(len(left), 1, dtype=mask.dtype)], 1)

    def _draw(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        return torch.multinomial((logits.double() / temperature).softmax(-1), 1, generator=self._random)[
            :, 0
        ]

    def _add(self, branch: _Branch, token: int) -> None:
        branch.drawn.append(token)
        branch.ended = token == self._tokenizer.eos_token_id
        if branch.stops_at_delimiter and not branch.ended:
            branch.delimited = self._options.delimiter in self._tokenizer.decode(branch.drawn)
        if branch.is_done():
            written = branch.drawn[:-1] if branch.ended else branch.drawn
            branch.text = self._tokenizer.decode(written)


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
