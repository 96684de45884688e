"""A token-classification PRM with a step marker in transformers (nano-prm; SEMANTICS.md, "Process reward
models")."""

from __future__ import annotations

from pathlib import Path as FilePath

import torch

from .checkpoints import chat_ids, encode, kv_cache, tokenizer_of, weights_in_f32
from .record import Line, Node

MARKER = "<extra_0>"
TOLERANCE = 2e-3
"""Of a score. Weights and KV cache are rounded alike on both sides; what is left is the order of sums in
f32, which now and then rounds a key or value to the neighbour."""


class Scorer:
    """Scores the steps of solutions."""

    def __init__(self, prm: FilePath) -> None:
        from transformers import AutoModelForTokenClassification

        self._tokenizer = tokenizer_of(prm)
        self._model = weights_in_f32(AutoModelForTokenClassification, prm)
        self._marker = self._tokenizer.convert_tokens_to_ids(MARKER)
        self._pad = self._tokenizer.pad_token_id

    @torch.inference_mode()
    def scores(self, rows: list[tuple[str, list[str]]], kv_dtype: str | None) -> list[list[float]]:
        """Rows of a problem and its steps to the score of every step: the probability of label 1 at the
        step's marker."""
        tokens = [self._tokens(problem, steps) for problem, steps in rows]
        longest = max(map(len, tokens))
        ids = torch.full((len(rows), longest), self._pad)
        for row, own in zip(ids, tokens):
            row[: len(own)] = torch.tensor(own)
        # Padding on the right of a causal model needs no mask.
        labels = (
            self._model(ids, past_key_values=kv_cache(kv_dtype), use_cache=True)
            .logits.double()
            .softmax(-1)[..., 1]
        )
        return [labels[index][ids[index] == self._marker].tolist() for index in range(len(rows))]

    def _tokens(self, problem: str, steps: list[str]) -> list[int]:
        ids = chat_ids(self._tokenizer, problem, None)
        for step in steps:
            ids += [*encode(self._tokenizer, step), self._marker]
        return ids


def score_differences(scorer: Scorer, lines: list[Line]) -> list[str]:
    """Recorded rewards that are not the PRM's, of every scored node of these problems.

    A path with bytes that are no UTF-8 is left out: its recorded text does not say which bytes.
    """
    found = []
    for line in lines:
        paths = {node.id: _steps(line, node) for node in line.nodes if node.reward is not None}
        read = {node: steps for node, steps in paths.items() if "\ufffd" not in "".join(steps)}
        rows = (
            scorer.scores([(line.problem, steps) for steps in read.values()], line.kv_dtype) if read else []
        )
        for node, scores in zip((line.nodes[node_id] for node_id in read), rows):
            if abs(scores[-1] - node.reward) > TOLERANCE:
                found.append(
                    f"{line.id}: node {node.id}: score {scores[-1]:.5f} here, "
                    f"{node.reward:.5f} in the record"
                )
    return found


def _steps(line: Line, node: Node) -> list[str]:
    steps = []
    while node.parent is not None:
        steps.append(node.text)
        node = line.nodes[node.parent]
    return steps[::-1]
