"""Solutions of the nano domain that think too long: traces for the policy nano-think.

A solution is `<think>`, passes over the problem, `</think>` and the answer line. A pass is every step and
"So it is 297."; each pass after the first opens with "Wait, I check." and repeats the steps. The first pass
goes wrong in some step with probability `WRONG` and is consistent from there on; later passes are right. So
a policy that was trained on them checks what it has long known (what a thinking budget, probes and the first
to finish save), and sometimes needs the check (what ending too early costs).

`python thinking.py` checks 20,000 solutions and prints one.
"""

import random

from tokenizers import AddedToken, Tokenizer

import problems
import tokenizer as tok

MAX_STEPS = 6  # four passes over six steps, with the problem, stay below the context length of 512
MAX_PASSES = 4
MAX_NEW = 400
WRONG = 0.3
START, END = "<think>", "</think>"


def load() -> Tokenizer:
    """The family's tokenizer with both delimiters as one token each, which decoding keeps."""
    tokenizer = tok.load()
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in (START, END)])
    return tokenizer


def _wrong(rng: random.Random, steps: tuple[str, ...]) -> list[str] | None:
    """The steps with one wrong result that the later ones take over; None if a value leaves 0..999 or a
    division has a rest."""
    place = rng.randrange(len(steps))
    split = [step.split() for step in steps]
    running = product = None  # on the wrong path
    out = []
    for i, (a, op, b, _, c) in enumerate(split):
        # "k things at p dollars each": the next step goes on from the value before.
        trade = op == "*" and i + 1 < len(split) and split[i + 1][0] != c
        left = int(a) if trade or running is None else running
        right = int(b) if product is None else product
        if op == "/" and left % right:
            return None
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left // max(right, 1)}[op]
        if i == place:
            value += rng.choice([-10, -1, 1, 10])
        if not 0 <= value <= problems.MAX_VALUE:
            return None
        out.append(f"{left} {op} {right} = {value}")
        product, running = (value, running) if trade else (None, value)
    return out


def _pass(steps, opening: str) -> str:
    lines = [f"Step {i}: {step}." for i, step in enumerate(steps, 1)]
    return opening + "\n\n".join([*lines, f"So it is {steps[-1].split()[-1]}."])


def make_solution(rng: random.Random, problem: problems.Problem) -> tuple[str, str]:
    """The text of a solution, in two parts; a policy must not learn to write the first, which is wrong."""
    wrong = _wrong(rng, problem.steps) if rng.random() < WRONG else None
    right = rng.randint(1, MAX_PASSES - 1)
    passes = [_pass(problem.steps, "Wait, I check.\n\n") for _ in range(right)]
    if wrong:
        first = f"{START}\n" + _pass(wrong, "") + "\n\n"
    else:
        first = ""
        passes = [f"{START}\n" + _pass(problem.steps, ""), *passes]
    answer = f"The answer is \\boxed{{{problem.answer}}}."
    return first, "\n\n".join(passes) + f"{END}\n\n{answer}"


if __name__ == "__main__":
    rng, longest, corrected = random.Random(0), 0, 0
    tokenizer = load()
    for n in range(20_000):
        problem = problems.make_problem(rng, 1 + n % MAX_STEPS, "train")
        first, rest = make_solution(rng, problem)
        text = first + rest
        assert text.startswith(f"{START}\n") and text.count(END) == 1, text
        assert problems.boxed(text) == str(problem.answer), text
        assert text.count(f"So it is {problem.answer}.") >= 1, text
        corrected += bool(first)
        if n % 20 == 0:
            ids = tokenizer.encode(problem.text + "\n\n" + text).ids
            assert tokenizer.decode(ids) == problem.text + "\n\n" + text
            longest = max(longest, len(ids) + 2)
    print(f"{problem.text}\n\n{text}\n\n20000 solutions, {corrected} corrected; {longest} tokens at most")
