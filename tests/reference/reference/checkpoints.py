"""Directories of `offshoot export` in transformers: weights as stored, arithmetic in f32, on one thread."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import torch
import transformers
from transformers import DynamicCache, PreTrainedTokenizerFast

from .record import Line

torch.set_num_threads(1)
transformers.logging.disable_progress_bar()

_STORED_AS = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


class RoundedCache(DynamicCache):
    """A KV cache that stores keys and values in another type than it computes with, as Offshoot's does."""

    def __init__(self, stored: torch.dtype) -> None:
        super().__init__()
        self._stored = stored

    def update(self, key_states: Any, value_states: Any, *rest: Any, **named: Any) -> tuple[Any, Any]:
        """Adds keys and values, rounded."""
        rounded = [states.to(self._stored).to(states.dtype) for states in (key_states, value_states)]
        return super().update(*rounded, *rest, **named)


def kv_cache(kv_dtype: str | None) -> RoundedCache:
    """An empty cache; without a type, that of the embedded weights."""
    return RoundedCache(_STORED_AS[kv_dtype or "bf16"])


def tokenizer_of(directory: FilePath) -> Any:
    """The tokenizer as `tokenizer.json` says; `AutoTokenizer` would replace the pre-tokenizer of a Qwen2
    model."""
    return PreTrainedTokenizerFast.from_pretrained(directory)


def weights_in_f32(kind: Any, directory: FilePath) -> Any:
    """A model of this class of transformers, in f32."""
    return kind.from_pretrained(directory, dtype=torch.float32).eval()


def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without special ones around it."""
    return tokenizer.encode(text, add_special_tokens=False)


def chat_ids(tokenizer: Any, problem: str, system: str | None) -> list[int]:
    """The tokens of the chat template with the problem, opened for the answer."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": problem})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return encode(tokenizer, text)


def prompt_ids(tokenizer: Any, line: Line) -> list[int]:
    """The policy's prompt of a recorded problem."""
    return chat_ids(tokenizer, line.problem, line.system)
