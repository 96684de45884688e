"""Measure the family: `python evaluate.py [--side validation]`.

Reads the exported directories (bf16 weights, computed in float32) and prints
greedy accuracy by level, pass@k, majority, best-of-N for each way to reduce step
scores, step beam search, and the PRM's step accuracy, first-wrong-step recall
and F1. Choices are made on the validation side; held-out is only reported.
"""

import argparse
import hashlib
import json
import math
import random
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig

import problems
import tokenizer as tok
from export import EMBEDDED
from model import Decoder, Shape
from sampler import sample, sample_batch
from train_prm import quality, row_of, scores, split

BUDGETS = (1, 4, 16, 64)
KEPT_OF = 4  # beam search keeps N / 4 and expands each into 4


def load(directory: Path) -> Decoder:
    config = AutoConfig.from_pretrained(directory)
    labels = 2 if "TokenClassification" in config.architectures[0] else 0
    shape = Shape(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        inter=config.intermediate_size,
        head_dim=config.head_dim,
        vocab=config.vocab_size,
        bias=bool(labels),
        labels=labels,
    )
    model = Decoder(shape)
    model.load_state_dict({k: v.float() for k, v in load_file(directory / "model.safetensors").items()})
    return model.eval()


def percent_by_level(rows: list[problems.Problem], right: list[float]) -> str:
    levels: dict[int, list[float]] = {}
    for row, r in zip(rows, right):
        levels.setdefault(row.level, []).append(r)
    parts = " ".join(f"{100 * sum(v) / len(v):5.1f}" for _, v in sorted(levels.items()))
    return f"{100 * sum(right) / len(right):5.1f}   by level {parts}"


def is_right(problem: problems.Problem, text: str) -> bool:
    return problems.boxed(text) == str(problem.answer)


# --- best of N ---------------------------------------------------------------

REDUCE = {"last": lambda s: s[-1], "min": min, "product": math.prod}


def best_of(problem, texts: list[str], step_scores: list[list[float]], how: str) -> bool:
    pairs = [(t, s) for t, s in zip(texts, step_scores) if problems.boxed(t) is not None and s]
    if not pairs:
        return False
    if how == "majority":
        votes = Counter(problems.boxed(t) for t, _ in pairs)
        return votes.most_common(1)[0][0] == str(problem.answer)
    if how.startswith("vote"):
        votes = Counter()
        for text, score in pairs:
            votes[problems.boxed(text)] += REDUCE[how.removeprefix("vote-")](score)
        return votes.most_common(1)[0][0] == str(problem.answer)
    return is_right(problem, max(pairs, key=lambda pair: REDUCE[how](pair[1]))[0])


# --- step beam search ----------------------------------------------------------


def beam(policy, prm, tokenizer, rows, n: int, temperature: float, seed: int) -> list[bool]:
    """N candidates a step, N/4 kept by the last PRM score, each expanded into 4.

    A finished path keeps its slot. All problems go through a round together.
    """
    generator = torch.Generator().manual_seed(seed)
    keep = max(1, n // KEPT_OF)
    step_end = tokenizer.encode("\n\n").ids[0]
    # a path: (pieces, finished, last score)
    front = [[((), False, 0.0)] for _ in rows]
    for _ in range(problems.MAX_STEPS + 2):
        jobs = [
            (i, path) for i, paths in enumerate(front) for path in paths if not path[1]
        ]
        if not jobs:
            break
        jobs.sort(key=lambda job: len(job[1][0]))
        pool = [[path for path in paths if path[1]] for paths in front]
        fresh: dict[tuple, bool] = {}  # equal steps of one parent are kept once
        for first_round in (True, False):
            each = n if first_round else n // keep
            some = [job for job in jobs if (not job[1][0]) == first_round]
            size = max(1, 512 // each)
            for at in range(0, len(some), size):
                part = some[at : at + size]
                ids = []
                for i, (pieces, _, _) in part:
                    text = "".join(piece + "\n\n" for piece in pieces)
                    ids.append(tok.prompt_ids(tokenizer, rows[i].text) + tokenizer.encode(text).ids)
                found = sample_batch(policy, ids, temperature, generator, each, stop=step_end)
                for row, tokens in enumerate(found):
                    i, (pieces, _, _) = part[row // each]
                    text = tokenizer.decode(tokens).strip()
                    done = tokens[-1] != step_end or "\\boxed" in text
                    if text:
                        fresh[(i, (*pieces, text))] = done
        keys = list(fresh)
        scored = scores(
            prm, tokenizer, [{"text": rows[i].text, "pieces": list(pieces)} for i, pieces in keys]
        )
        for (i, pieces), values in zip(keys, scored):
            pool[i].append((pieces, fresh[(i, pieces)], values[-1]))
        front = [sorted(paths, key=lambda path: -path[2])[:keep] for paths in pool]
    answers = []
    for problem, paths in zip(rows, front):
        finished = [path for path in paths if path[1] and problems.boxed(path[0][-1])]
        best = max(finished, key=lambda path: path[2], default=None)
        answers.append(best is not None and is_right(problem, best[0][-1]))
    return answers


# --- the report ------------------------------------------------------------------


def sampled(directory: Path, policy, texts: list[str], temperature: float, side: str):
    """64 solutions per problem, kept in run/ under a hash of weights and problems."""
    weights = (directory / "model.safetensors").read_bytes()
    key = hashlib.sha256(weights + json.dumps([texts, temperature]).encode()).hexdigest()[:12]
    path = tok.RUN / f"samples-{side}-{key}.json"
    if not path.exists():
        many = sample(policy, tok.load(), texts, temperature, seed=3, each=BUDGETS[-1], batch=512)
        path.write_text(json.dumps(many))
    return json.loads(path.read_text())


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--side", default="heldout", choices=["heldout", "validation"])
    args.add_argument("--per-level", type=int, default=40)
    args.add_argument("--temperature", type=float, default=0.8)
    args.add_argument("--beam", default="4,16,64", help="budgets; empty: no beam search")
    args.add_argument("--no-prm", action="store_true", help="the policies alone")
    args.add_argument("--dir", type=Path, default=EMBEDDED)
    args = args.parse_args()
    torch.set_num_threads(1)
    tokenizer = tok.load()
    rows = problems.problem_set(args.side, args.per_level, seed=0)
    texts = [p.text for p in rows]
    small, big, prm = (load(args.dir / f"nano-{name}") for name in ("small", "big", "prm"))
    print(f"{args.side}, {len(rows)} problems, T {args.temperature}")
    for name, policy in (("small", small), ("big", big)):
        greedy = sample(policy, tokenizer, texts, 0.0)
        right = [is_right(p, t[0]) for p, t in zip(rows, greedy)]
        print(f"{name} greedy {percent_by_level(rows, right)}", flush=True)
        for subject in problems.SUBJECTS:
            some = [r for p, r in zip(rows, right) if p.subject == subject]
            print(f"    {subject} {100 * sum(some) / len(some):.1f} of {len(some)}")
        length = [len(tokenizer.encode(t[0]).ids) for t in greedy]
        print(f"    mean length {sum(length) / len(length):.0f} tokens", flush=True)

    many = sampled(args.dir / "nano-small", small, texts, args.temperature, args.side)
    right = [[is_right(p, t) for t in ts] for p, ts in zip(rows, many)]
    for k in BUDGETS:
        passed = [
            1 - math.comb(len(r) - sum(r), k) / math.comb(len(r), k) for r in right
        ]
        print(f"small pass@{k} {percent_by_level(rows, passed)}", flush=True)

    if args.no_prm:
        return
    keys = sorted({(i, t) for i, ts in enumerate(many) for t in ts})  # equal texts scored once
    judged = {key: row_of(rows[key[0]], split(key[1])) for key in keys}
    values = dict(zip(keys, scores(prm, tokenizer, [judged[key] for key in keys])))
    marks = [[values[(i, t)] for t in ts] for i, ts in enumerate(many)]
    eight = [(i, t) for i, ts in enumerate(many) for t in ts[:8]]
    report = quality([judged[key] for key in eight], [values[key] for key in eight])
    print("prm", {k: round(v, 1) for k, v in report.items()}, flush=True)
    rng = random.Random(0)
    for n in BUDGETS[1:]:
        draws = [rng.sample(range(BUDGETS[-1]), n) for _ in range(1 if n == BUDGETS[-1] else 8)]
        for how in ("majority", "last", "min", "product", "vote-last", "vote-product"):
            share = [
                sum(best_of(p, [ts[i] for i in d], [ss[i] for i in d], how) for d in draws) / len(draws)
                for p, ts, ss in zip(rows, many, marks)
            ]
            print(f"best of {n} {how:12} {percent_by_level(rows, share)}", flush=True)
    for n in (int(b) for b in args.beam.split(",") if b):
        found = beam(small, prm, tokenizer, rows, n, args.temperature, seed=4)
        print(f"beam {n} {percent_by_level(rows, found)}", flush=True)


if __name__ == "__main__":
    main()
