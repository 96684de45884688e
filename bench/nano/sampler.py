"""Batched sampling with a KV cache, for labelling PRM data and for evaluation.

Prompts of one batch are padded on the left; a mask hides the padding and every
row counts its own positions. A prompt is computed once and its cache repeated
for its samples.
"""

import torch
from tokenizers import Tokenizer

from model import Decoder, rope_tables
from tokenizer import EOS_ID, PAD_ID, prompt_ids

MAX_NEW = 192  # ten steps of the longest kind and the answer take 180 tokens


@torch.inference_mode()
def sample_batch(
    model: Decoder,
    prompts: list[list[int]],
    temperature: float,
    generator: torch.Generator,
    each: int = 1,
    stop: int | None = None,
    max_new: int = MAX_NEW,
) -> list[list[int]]:
    """`each` continuations per prompt, in order, up to eos or `stop`, that one kept.

    Temperature 0 is greedy.
    """
    s = model.shape
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD_ID] * (width - len(p)) + p for p in prompts])
    pad = torch.tensor([width - len(p) for p in prompts])
    room = width + max_new
    caches = [
        [torch.zeros(len(prompts), s.kv_heads, room, s.head_dim) for _ in range(2)]
        for _ in range(s.layers)
    ]
    seen = torch.arange(room)[None, :] >= pad[:, None]  # [rows, room]
    causal = torch.tril(torch.ones(width, width, dtype=torch.bool))
    mask = (seen[:, None, :width] & causal)[:, None] | torch.eye(width, dtype=torch.bool)
    positions = (torch.arange(width)[None, :] - pad[:, None]).clamp(min=0)
    logits = _forward(model, ids, positions, caches, 0, mask)

    logits, pad, seen = (t.repeat_interleave(each, 0) for t in (logits, pad, seen))
    caches = [[t.repeat_interleave(each, 0) for t in pair] for pair in caches]
    out = torch.full((len(pad), max_new), EOS_ID)
    rows = torch.arange(len(pad))  # which output row each row of the batch writes
    going = torch.ones(len(pad), dtype=torch.bool)
    for n in range(max_new):
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            chance = (logits / temperature).softmax(-1)
            token = torch.multinomial(chance, 1, generator=generator)[:, 0]
        out[rows, n] = token
        going &= (token != EOS_ID) & (token != (EOS_ID if stop is None else stop))
        if not going.any():
            break
        if going.sum() < 0.8 * len(rows):  # drop finished rows when enough of them are
            caches = [[t[going] for t in pair] for pair in caches]
            rows, token, pad, seen = rows[going], token[going], pad[going], seen[going]
            going = going[going]
        at = width + n
        logits = _forward(
            model, token[:, None], (at - pad)[:, None], caches, at, seen[:, None, None, : at + 1]
        )
    return [_cut(row, stop) for row in out.tolist()]


def _forward(model: Decoder, ids, positions, caches, start: int, mask) -> torch.Tensor:
    """Logits of the last new position [rows, vocab]; writes K and V from `start`."""
    cos, sin = rope_tables(positions, model.shape.head_dim)
    x = model.model.embed_tokens(ids)
    for layer, (k, v) in zip(model.model.layers, caches):
        x = layer(x, cos[:, None], sin[:, None], (k, v, start), mask)
    return model.logits(model.model.norm(x[:, -1]))


def _cut(row: list[int], stop: int | None) -> list[int]:
    ends = [i for i, token in enumerate(row) if token in (EOS_ID, stop)]
    return row[: ends[0] + 1] if ends else row


def sample(
    model: Decoder,
    tokenizer: Tokenizer,
    texts: list[str],
    temperature: float,
    seed: int = 0,
    each: int = 1,
    batch: int = 256,
    max_new: int = MAX_NEW,
) -> list[list[str]]:
    """`each` solution texts per problem text, in order; batches of like lengths."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [prompt_ids(tokenizer, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (len(prompts[i]), i))
    answers: list[list[str]] = [[] for _ in texts]
    size = max(1, batch // each)
    for at in range(0, len(order), size):
        some = order[at : at + size]
        found = sample_batch(
            model, [prompts[i] for i in some], temperature, generator, each, max_new=max_new
        )
        for row, tokens in enumerate(found):
            answers[some[row // each]].append(tokenizer.decode(tokens))
    return answers
