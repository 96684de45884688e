"""Fine-tune the PRM from a trained policy: `python train_prm.py --minutes M`.

The start is a policy's weights plus two fresh layers on top (their output
projections zero, so at first they change nothing), zero QKV biases, the embedding
of the marker and a two-class head. The policy predicts each digit in its top
layer; the first fresh layer starts out looking at the token before, so it can
compare that prediction with the digit that was written (look_one_back); the
second can carry what it found to the marker.

The policy's layers stay as they are, so their states are computed once per text
and kept; an update then only runs the two fresh layers. That made the difference:
at one update a second the same start had learned little after 15 minutes.

Data: solutions sampled from the small policy and corruptions of right ones, each
piece labelled by executing it (problems.labels). A solution contributes its
pieces up to the third wrong one; the two classes weigh the same in the loss.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import problems
import tokenizer as tok
from model import Decoder, Shape, rope_tables
from sampler import sample

WARM_UP = 100
TOKENS_PER_BATCH = 3072
SIDE, CODE, SCALE = 32, 1.0, 5.0
FRESH = 2  # layers on top of the policy's


# --- data ------------------------------------------------------------------


def sampled(policy_file: str, count: int, seed: int) -> list[dict]:
    """`count` solutions of the policy to fresh training problems, T in 0.7..1.1."""
    policy, tokenizer = load_policy(policy_file), tok.load()
    rng = random.Random(f"prm-{seed}")
    rows = []
    for temperature in (0.7, 0.9, 1.1):
        made = [
            problems.make_problem(rng, 1 + n % problems.MAX_STEPS, "train")
            for n in range(count // 3)
        ]
        texts = sample(policy, tokenizer, [p.text for p in made], temperature, seed)
        for problem, (text,) in zip(made, texts):
            rows.append(row_of(problem, split(text)))
    return rows


def split(solution: str) -> list[str]:
    """The pieces that the PRM scores."""
    pieces = [piece.strip() for piece in solution.split("\n\n") if piece.strip()]
    return pieces[: problems.MAX_STEPS + 2]


def row_of(problem: problems.Problem, pieces: list[str]) -> dict:
    labels = problems.labels(problem, pieces)
    return {
        "text": problem.text,
        "steps": len(problem.steps),
        "truth": problem.pieces,
        "pieces": pieces,
        "labels": labels,
    }


def corrupted(rng: random.Random) -> dict:
    """A right solution with one step spoilt, the rest following the spoilt value."""
    problem = problems.make_problem(rng, rng.randint(1, problems.MAX_STEPS), "train")
    at = rng.randrange(len(problem.steps))
    equations = [step.split() for step in problem.steps]
    a, op, b, _, c = equations[at]
    kind = rng.choice(["digit", "near", "operand", "operator", "skip"])
    if kind == "digit":
        i = rng.randrange(len(c))
        c = c[:i] + rng.choice([d for d in "0123456789" if d != c[i]]) + c[i + 1 :]
        c = str(int(c))
    elif kind == "near":
        c = str(abs(int(c) + rng.choice([-100, -20, -10, -2, -1, 1, 2, 10, 20, 100])))
    elif kind == "operand":
        b = str(max(1, int(b) + rng.choice([-10, -1, 1, 10])))
        c = str(_value(int(a), op, int(b)))
    elif kind == "operator":
        op = rng.choice([o for o in "+-*/" if o != op])
        c = str(_value(int(a), op, int(b)))
    if kind == "skip" and len(equations) > 1:
        del equations[at]
    else:
        equations[at] = [a, op, b, "=", c]
    _follow(equations, problem.steps, at)
    pieces = [f"Step {i}: {' '.join(e)}." for i, e in enumerate(equations, 1)]
    pieces.append(f"The answer is \\boxed{{{equations[-1][-1]}}}.")
    return row_of(problem, pieces)


def _value(a: int, op: str, b: int) -> int:
    exact = {"+": a + b, "-": abs(a - b), "*": a * b, "/": a // max(b, 1)}[op]
    return exact % 1000


def _follow(equations: list[list[str]], truth: tuple[str, ...], at: int) -> None:
    """Carry the value of equation `at` through the equations after it."""
    true_value = {step.split()[-1] for step in truth}
    for i in range(at + 1, len(equations)):
        a, op, b, _, _ = equations[i]
        before = equations[i - 1][-1]
        if a in true_value and b in true_value and a != before and b != before:
            b = before  # the second half of a trade: total + product
        elif a != before and a in true_value:
            a = before
        equations[i] = [a, op, b, "=", str(_value(int(a), op, int(b)))]


def encode(tokenizer, row: dict) -> tuple[list[int], list[int]]:
    """ids, and for every token of the solution whether the text so far is right.

    The labels at the markers are the ones that count in the end; those inside of
    the steps say where a step goes wrong. -100 elsewhere.
    """
    ids = tok.prompt_ids(tokenizer, row["text"])
    labels = [-100] * len(ids)
    wrong = 0
    for i, (piece, label) in enumerate(zip(row["pieces"], row["labels"])):
        wrong += label == 0
        if wrong > 3:
            break
        tokens = tok.marked_ids(tokenizer, [piece])
        ids += tokens
        if label == 0 and wrong == 1 and i < len(row["truth"]):
            truth = tok.marked_ids(tokenizer, [row["truth"][i]])
            same = next((n for n, (a, b) in enumerate(zip(tokens, truth)) if a != b), 0)
        else:
            same = len(tokens) * label
        labels += [int(n < same) for n in range(len(tokens))]
    return ids, labels


def batches_of(tokenizer, prm: Decoder, rows: list[dict]) -> list[tuple]:
    """(ids, labels, states) of texts of like length, right-padded; states are the policy's
    part of the PRM after its last layer, [batch, length, hidden] in bf16."""
    pairs = [encode(tokenizer, row) for row in rows]
    pairs = sorted((p for p in pairs if any(n != -100 for n in p[1])), key=lambda p: len(p[0]))
    batches, at = [], 0
    while at < len(pairs):
        count = max(1, TOKENS_PER_BATCH // len(pairs[min(at + 20, len(pairs) - 1)][0]))
        some = pairs[at : at + count]
        at += count
        width = max(len(ids) for ids, _ in some)
        ids = torch.full((len(some), width), tok.PAD_ID)
        labels = torch.full((len(some), width), -100)
        for i, (own, marks) in enumerate(some):
            ids[i, : len(own)] = torch.tensor(own)
            labels[i, : len(marks)] = torch.tensor(marks)
        with torch.inference_mode():
            cos, sin = rope_tables(torch.arange(width), prm.shape.head_dim)
            states = prm.model.embed_tokens(ids)
            for layer in prm.model.layers[:-FRESH]:
                states = layer(states, cos, sin)
        batches.append((ids, labels, states.bfloat16()))
    return batches


# --- training --------------------------------------------------------------


def load_policy(file: str) -> Decoder:
    state = torch.load(tok.RUN / file)
    model = Decoder(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model


def prm_from(policy: Decoder, extra_layers: int) -> Decoder:
    """The policy inside a wider decoder, with a side stream and fresh layers on top.

    The policy's residual grows to hundreds of times the embedding, so at its end the
    token it stands on cannot be read any more. SIDE further dimensions carry that: one
    for each of the 24 tokens that solutions are made of, CODE at its own token. The
    policy's layers do not see them (norm weight 0); the fresh layers do, amplified by
    their norm weights. The policy's own embedding and outputs are scaled up by SCALE,
    which RMSNorm undoes, so that the code hardly moves its norms.
    """
    old = policy.shape
    shape = old.dict() | {"hidden": old.hidden + SIDE, "layers": old.layers + extra_layers}
    prm = Decoder(Shape(**shape | {"bias": True, "labels": 2}))
    with torch.no_grad():
        own = dict(policy.named_parameters())
        for name, p in prm.named_parameters():
            if name not in own:
                continue
            q = own[name]
            if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
                q = q * SCALE
            p.zero_()
            p[tuple(slice(0, n) for n in q.shape)] = q
            if "layernorm" in name or name == "model.norm.weight":
                p *= (old.hidden / shape["hidden"]) ** 0.5  # the mean runs over more dimensions
        tokens = prm.model.embed_tokens.weight
        step_end = tok.load().encode("\n\n").ids[0]
        written = solution_tokens()
        count = len(written)
        tokens[written, old.hidden + torch.arange(count)] = CODE
        one = old.hidden + count  # a constant: what the thresholds below are made of
        tokens[:, one] = CODE
        tokens[tok.MARK_ID] = tokens[step_end]  # the policy reads the marker as a step's end
        fresh = prm.model.layers[old.layers :]
        norms = [n for f in fresh for n in (f.input_layernorm, f.post_attention_layernorm)]
        for norm in (*norms, prm.model.norm):
            norm.weight[old.hidden :] = 2 * residual_size(prm, old.layers) / CODE
        look_one_back(fresh[0].self_attn)
        # The first head fetches the policy's logits of those tokens, centred, and adds
        # them to the code: a token that was foreseen stands out in its own dimension.
        logit_rows = policy.model.embed_tokens.weight[written] * policy.model.norm.weight
        logit_rows = logit_rows - logit_rows.mean(0)
        attention = fresh[0].self_attn
        attention.v_proj.weight[:count].zero_()
        attention.v_proj.weight[:count, : old.hidden] = logit_rows / 10
        side = slice(old.hidden, old.hidden + count)
        attention.o_proj.weight[side, :count] = torch.eye(count) * CODE / 2
        compare(fresh[0].mlp, old.hidden, count)
        collect(fresh[1].self_attn, one)
    return prm


def compare(mlp: torch.nn.Module, first: int, count: int) -> None:
    """Dimension `match` := CODE where a token's code plus logit passes 1.5 to 1.7 codes.

    A token the policy was sure of stands at about 2, a surprise below 1.4. Two
    units per token make a ramp: silu(x - 1.5) - silu(x - 1.7), at slope 10.
    """
    one, match, slope = first + count, first + count + 1, 10.0
    for half, (threshold, sign) in enumerate([(1.5, 1.0), (1.7, -1.0)]):
        units = torch.arange(count) + half * count
        for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
            weight[units] = 0.0
        mlp.gate_proj.weight[units, first + torch.arange(count)] = slope
        mlp.gate_proj.weight[units, one] = -slope * threshold
        mlp.up_proj.weight[units, one] = 0.5
        mlp.down_proj.weight[match, units] = sign * CODE / (slope * 2 * 0.2)


def collect(attention: torch.nn.Module, one: int) -> None:
    """Start one head on earlier surprises (one - match), written to a dimension of its own."""
    match, found, slow = one + 1, one + 2, attention.s.head_dim // 2 - 1
    attention.q_proj.bias[slow] = 6.0  # the slowest frequency hardly turns
    attention.k_proj.weight[slow].zero_()
    attention.k_proj.weight[slow, [one, match]] = torch.tensor([1.5, -1.5])
    attention.v_proj.weight[0].zero_()
    attention.v_proj.weight[0, [one, match]] = torch.tensor([0.5, -0.5])
    attention.o_proj.weight[found, 0] = CODE


def solution_tokens() -> list[int]:
    """The tokens that solutions are made of: at most SIDE."""
    rng, tokenizer, seen = random.Random(0), tok.load(), set()
    for n in range(500):
        problem = problems.make_problem(rng, 1 + n % problems.MAX_STEPS, "train")
        seen.update(tokenizer.encode(problem.solution).ids)
    assert len(seen) <= SIDE, len(seen)
    return sorted(seen)


def residual_size(prm: Decoder, layers: int) -> float:
    """Root mean square of the residual after `layers` layers, on 50 solutions."""
    rng, tokenizer = random.Random(0), tok.load()
    squares = []
    for _ in range(50):
        problem = problems.make_problem(rng, 5, "train")
        ids = tok.prompt_ids(tokenizer, problem.text) + tok.marked_ids(tokenizer, problem.pieces)
        cos, sin = rope_tables(torch.arange(len(ids)), prm.shape.head_dim)
        x = prm.model.embed_tokens(torch.tensor([ids]))
        for layer in prm.model.layers[:layers]:
            x = layer(x, cos, sin)
        squares.append(x.pow(2).mean().item())
    return (sum(squares) / len(squares)) ** 0.5


def look_one_back(attention: torch.nn.Module) -> None:
    """Start every head on the token before: there the policy has predicted this one.

    Constant queries and keys (the biases) score by distance alone under RoPE. With
    q = (c, 0) and k = c (cos f, sin f) for frequency f, distance d scores
    c^2 cos((d - 1) f); over the fastest frequencies the sum peaks at d = 1.
    """
    dim, size, fast = attention.s.head_dim, 7.0, 6
    cos, sin = rope_tables(torch.tensor(1), dim)
    query, key = torch.zeros(dim), torch.zeros(dim)
    query[:fast] = size
    key[:fast] = size * cos[:fast]
    key[dim // 2 : dim // 2 + fast] = size * sin[:fast]
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    attention.q_proj.bias.copy_(query.repeat(attention.s.heads))
    attention.k_proj.bias.copy_(key.repeat(attention.s.kv_heads))


def balanced_loss(logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with both classes of equal weight: markers' and all tokens', averaged."""
    total = 0.0
    for keep in (labels != -100, (labels != -100) & (ids == tok.MARK_ID)):
        some = labels[keep]
        counts = torch.bincount(some, minlength=2).clamp(min=1)
        total = total + F.cross_entropy(logits[keep], some, weight=len(some) / (2.0 * counts)) / 2
    return total


@torch.inference_mode()
def scores(prm: Decoder, tokenizer, rows: list[dict], batch: int = 128) -> list[list[float]]:
    """P(right) of every piece of every row: softmax of the head at its marker."""
    ids = [
        tok.prompt_ids(tokenizer, row["text"]) + tok.marked_ids(tokenizer, row["pieces"])
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
    out: list[list[float]] = [[] for _ in rows]
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        width = max(len(ids[i]) for i in some)
        full = torch.tensor([ids[i] + [tok.PAD_ID] * (width - len(ids[i])) for i in some])
        right = prm(full).softmax(-1)[..., 1]
        for row, i in enumerate(some):
            out[i] = right[row][full[row] == tok.MARK_ID].tolist()
    return out


def quality(rows: list[dict], predicted: list[list[float]]) -> dict[str, float]:
    """Step accuracy up to the first wrong step, and ProcessBench's two recalls, in %."""
    hit = seen = found = wrong = clean = right = 0
    for row, score in zip(rows, predicted):
        labels = row["labels"]
        end = labels.index(0) + 1 if 0 in labels else len(labels)
        hit += sum((s > 0.5) == bool(l) for s, l in zip(score[:end], labels[:end]))
        seen += end
        first = next((i for i, s in enumerate(score) if s <= 0.5), -1)
        if 0 in labels:
            wrong += 1
            found += first == labels.index(0)
        else:
            right += 1
            clean += first == -1
    wrong_recall, clean_recall = 100 * found / max(wrong, 1), 100 * clean / max(right, 1)
    return {
        "step accuracy": 100 * hit / seen,
        "first wrong step found": wrong_recall,
        "right solutions left alone": clean_recall,
        "F1": 2 * wrong_recall * clean_recall / max(wrong_recall + clean_recall, 1e-9),
    }


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--base", default="big-final.pt", help="policy to start from, in run/")
    args.add_argument("--sampled-from", default="small-final.pt")
    args.add_argument("--run", default="prm")
    args.add_argument("--count", type=int, default=30_000, help="solutions to sample")
    args.add_argument("--use", type=int, default=20_000, help="of them to train on")
    args.add_argument("--corrupt", type=int, default=8_000, help="corruptions to train on")
    args.add_argument("--minutes", type=float, default=14, help="of updates")
    args.add_argument("--rate", type=float, default=1e-3)
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = tok.load()

    data = tok.RUN / f"prm-data-{Path(args.sampled_from).stem}.jsonl"
    if not data.exists():
        with data.open("w") as file:
            for row in sampled(args.sampled_from, args.count, seed=1):
                file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in data.open()]
    assert all(problems.split_of(row["text"]) == "train" for row in rows)
    rng = random.Random(1)
    rng.shuffle(rows)
    rows = rows[: args.use] + [corrupted(rng) for _ in range(args.corrupt)]
    held = validation_rows(args.sampled_from)

    path = tok.RUN / f"{args.run}.pt"
    prm = prm_from(load_policy(args.base), FRESH)
    batches = batches_of(tokenizer, prm, rows)
    for part in (prm.model.embed_tokens, *prm.model.layers[:-FRESH]):
        part.requires_grad_(False)
    trained = [p for p in prm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    update, spent = 0, 0.0
    if path.exists():
        state = torch.load(path)
        prm.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        update, spent = state["update"], state["spent"]
    print(f"prm: {prm.parameter_count()} parameters, from update {update}", flush=True)
    began, losses, order = time.time() - spent, [], []
    while (left := args.minutes - (time.time() - began) / 60) > 0:
        if not order:
            order = rng.sample(range(len(batches)), len(batches))
        ids, labels, states = batches[order.pop()]
        cos, sin = rope_tables(torch.arange(ids.shape[1]), prm.shape.head_dim)
        x = states.float().clone()
        for layer in prm.model.layers[-FRESH:]:
            x = layer(x, cos, sin)
        loss = balanced_loss(prm.logits(prm.model.norm(x)), ids, labels)
        for group in optimizer.param_groups:
            decay = max(0.02, left / (0.5 * args.minutes))
            group["lr"] = args.rate * min(1, (update + 1) / WARM_UP, decay)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        update += 1
        losses.append(loss.item())
        if update % 100 == 0:
            mean = sum(losses) / len(losses)
            print(f"{update} loss {mean:.4f} {args.minutes - left:.1f} min", flush=True)
            losses = []
        if update % 500 == 0:
            save(path, prm, optimizer, update, time.time() - began)
            report = quality(held, scores(prm, tokenizer, held))
            print(update, {k: round(v, 1) for k, v in report.items()}, flush=True)
    save(path, prm, optimizer, update, time.time() - began)
    report = quality(held, scores(prm, tokenizer, held))
    print(update, {k: round(v, 1) for k, v in report.items()}, flush=True)


def save(path: Path, prm: Decoder, optimizer, update: int, spent: float) -> None:
    state = {"shape": prm.shape.dict(), "model": prm.state_dict(), "update": update}
    state |= {"optimizer": optimizer.state_dict(), "spent": spent}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def validation_rows(policy_file: str) -> list[dict]:
    """Three samples at T=0.8 to each of 50 validation problems, labelled."""
    made = problems.problem_set("validation", 10, seed=0)
    found = sample(load_policy(policy_file), tok.load(), [p.text for p in made], 0.8, 2, each=3)
    return [row_of(p, split(text)) for p, texts in zip(made, found) for text in texts]


if __name__ == "__main__":
    main()
