"""The policy's hidden states in transformers, for DORA."""

from __future__ import annotations

from pathlib import Path as FilePath

import torch

from .checkpoints import encode, kv_cache, prompt_ids, tokenizer_of, weights_in_f32
from .path import Path
from .record import Line


class Embedder:
    """Embeds paths of recorded trees."""

    def __init__(self, policy: FilePath) -> None:
        from transformers import AutoModelForCausalLM

        self._tokenizer = tokenizer_of(policy)
        self._model = weights_in_f32(AutoModelForCausalLM, policy)

    @torch.inference_mode()
    def embeddings(self, line: Line, paths: list[Path]) -> list[list[float]]:
        """The mean of the final hidden states, behind the final norm, over each path's own tokens.

        The record has texts, not tokens: a step's text is encoded with the delimiter that ended it. Where
        that gives another number of tokens than the policy drew, the tokens were others than the text's
        own.
        """
        prompt = prompt_ids(self._tokenizer, line)
        rows = []
        for path in paths:
            own = [token for step in path.line() for token in self._tokens(step, line.options.delimiter)]
            out = self._model(
                torch.tensor([prompt + own]),
                past_key_values=kv_cache(line.kv_dtype),
                use_cache=True,
                output_hidden_states=True,
            )
            states = out.hidden_states[-1]
            rows.append(states[0, len(prompt) :].double().mean(0).tolist())
        return rows

    def _tokens(self, step: Path, delimiter: str) -> list[int]:
        return encode(self._tokenizer, step.text + delimiter)
