"""Train a policy: `python train_policy.py small|big|think [--minutes M]`.

Fresh problems every update, loss on the solution only, one number of steps per
batch so that padding is short. The rate is constant after a warm-up (the trunk);
run/NAME.pt is rewritten every two minutes and a rerun goes on from it.
`--decay K` branches off from a checkpoint of the trunk (`--start`): K more
updates with the rate falling to zero, saved as run/NAME-final.pt.
`think` has the shape of `small` and writes the over-long solutions of thinking.py.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import problems
import thinking
import tokenizer as tok
from model import Decoder, Shape
from optim import Optimizer
from sampler import MAX_NEW, sample

SHAPES = {
    "small": Shape(hidden=32, layers=3, heads=2, kv_heads=1, inter=64),
    "big": Shape(hidden=96, layers=3, heads=4, kv_heads=2, inter=320),
    "think": Shape(hidden=32, layers=3, heads=2, kv_heads=1, inter=64, vocab=482),
}
MUON_RATE = {"small": 8e-3, "big": 6e-3, "think": 8e-3}
ADAM_RATE = {"small": 4e-3, "big": 3e-3, "think": 4e-3}
WARM_UP = 100
TOKENS_PER_BATCH = 4096


def batch_of(
    tokenizer, rng: random.Random, update: int, think: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and targets [batch, length]; a target is -100 outside of what is to be learned."""
    longest = thinking.MAX_STEPS if think else problems.MAX_STEPS
    steps = rng.randint(1, min(longest, 2 + update // 100))  # short problems first
    count = TOKENS_PER_BATCH // ((20 + 20 * steps) * (3 if think else 1))
    rows = [problems.make_problem(rng, steps, "train") for _ in range(count)]
    assert all(problems.split_of(p.text) == "train" for p in rows)
    parts = [thinking.make_solution(rng, p) if think else ("", p.solution) for p in rows]
    prompts = tokenizer.encode_batch([p.text + "\n\n" for p in rows])
    wrongs = tokenizer.encode_batch([wrong for wrong, _ in parts])
    solutions = tokenizer.encode_batch([right for _, right in parts])
    pairs = [
        ([tok.BOS_ID, *p.ids, *w.ids], [*s.ids, tok.EOS_ID])
        for p, w, s in zip(prompts, wrongs, solutions)
    ]
    width = max(len(p) + len(s) for p, s in pairs)
    full = torch.full((count, width), tok.PAD_ID)
    targets = torch.full((count, width), -100)
    for i, (p, s) in enumerate(pairs):
        full[i, : len(p) + len(s)] = torch.tensor(p + s)
        targets[i, len(p) : len(p) + len(s)] = torch.tensor(s)
    return full[:, :-1], targets[:, 1:]


def greedy_by_level(model: Decoder, tokenizer, per_level: int, think: bool) -> dict[int, float]:
    """Greedy accuracy in % on validation problems; `think` has learned those of levels 1 to 3 only."""
    rows = problems.problem_set("validation", per_level, seed=0)
    max_new = thinking.MAX_NEW if think else MAX_NEW
    answers = sample(model, tokenizer, [p.text for p in rows], 0.0, max_new=max_new)
    right = {level: 0 for level in problems.STEPS_OF_LEVEL}
    for problem, (text,) in zip(rows, answers):
        right[problem.level] += problems.boxed(text) == str(problem.answer)
    return {level: 100 * n / per_level for level, n in right.items()}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("name", choices=SHAPES)
    args.add_argument("--run", default="", help="file name in run/, default: the name")
    args.add_argument("--minutes", type=float, default=30)
    args.add_argument("--decay", type=int, default=0, help="updates of the branch")
    args.add_argument("--start", default="", help="checkpoint in run/ to branch off from")
    args.add_argument("--shape", default="{}", help="JSON over the shape's fields")
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = args.run or args.name
    think = args.name == "think"
    tokenizer = thinking.load() if think else tok.load()

    path = tok.RUN / (args.start or f"{run}.pt")
    state = torch.load(path) if path.exists() else {}
    shape = Shape(**state.get("shape", SHAPES[args.name].dict() | json.loads(args.shape)))
    model = Decoder(shape)
    optimizer = Optimizer(model, MUON_RATE[args.name], ADAM_RATE[args.name])
    update, spent = state.get("update", 0), state.get("spent", 0.0)
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    print(f"{run}: {model.parameter_count()} parameters, from update {update}", flush=True)

    def save(to: Path, seconds: float) -> None:
        state = {"shape": shape.dict(), "model": model.state_dict(), "update": update}
        state |= {"optimizer": optimizer.state_dict(), "spent": seconds}
        torch.save(state, to.with_suffix(".tmp"))
        to.with_suffix(".tmp").rename(to)

    first, began, losses = update, time.time(), []
    last = saved = began
    done = False
    while not done:
        scale = min(1, (update + 1) / WARM_UP)
        if args.decay:
            scale *= 1 - (update - first) / args.decay
        ids, targets = batch_of(tokenizer, random.Random(f"{args.name}-{update}"), update, think)
        keep = targets != -100
        loss = F.cross_entropy(model.logits(model.hidden(ids)[keep]), targets[keep])
        optimizer.step(loss, scale)
        update += 1
        losses.append(loss.item())
        now = time.time()
        minutes = (spent + now - began) / 60
        if update % 100 == 0:
            mean = sum(losses) / len(losses)
            print(f"{update} loss {mean:.4f} {minutes:.1f} min", flush=True)
            losses = []
        done = update - first >= args.decay if args.decay else now - began > 60 * args.minutes
        if done or now - saved > 120:
            saved = now
            if not args.decay:
                save(tok.RUN / f"{run}.pt", 60 * minutes)
                save(tok.RUN / f"{run}-{update}.pt", 60 * minutes)
            elif done:
                save(tok.RUN / f"{run}-final.pt", 60 * minutes)
            accuracy = greedy_by_level(model, tokenizer, 40 if done else 10, think)
            mean = sum(accuracy.values()) / len(accuracy)
            print(f"{update} validation greedy {mean:.1f}% by level {accuracy}", flush=True)


if __name__ == "__main__":
    main()
