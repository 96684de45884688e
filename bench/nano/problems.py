"""The nano domain: arithmetic word problems with one true chain of steps.

A problem is a start value and a list of events; its solution is one line per
operation. Three subjects differ in story and operation mix:

* Counting: + - and "times as many";
* Shopping: + - and "k things at p dollars each", which takes two steps;
* Sharing:  + - and exact division, with some multiplication.

Every value lies in 0..999. A problem's level is its number of steps:
1-2, 3-4, 5-6, 7-8, 9-10 for levels 1..5.

The side a problem belongs to is a property of its text alone (`split_of`), so
training and held-out problems are disjoint by construction, whatever the seed.
`python problems.py` prints one problem of each subject and checks the solutions.
"""

import random
import re
from dataclasses import dataclass

MAX_VALUE = 999
STEPS_OF_LEVEL = {1: (1, 2), 2: (3, 4), 3: (5, 6), 4: (7, 8), 5: (9, 10)}
MAX_STEPS = 10
NAMES = ["Eli", "Mia", "Tom", "Ana", "Ben", "Zoe", "Sam", "Ivy", "Max", "Lea"]
THINGS = ["coins", "shells", "cards", "beads", "books", "stamps", "apples", "pens"]
GOODS = ["hats", "cups", "lamps", "shirts", "maps", "bags", "plants", "rugs"]


@dataclass(frozen=True)
class Problem:
    subject: str
    text: str
    steps: tuple[str, ...]  # "47 * 5 = 235", in order
    answer: int

    @property
    def level(self) -> int:
        return (len(self.steps) + 1) // 2

    @property
    def pieces(self) -> list[str]:
        """The solution as the PRM sees it: every step, then the answer line."""
        lines = [f"Step {i}: {step}." for i, step in enumerate(self.steps, 1)]
        return [*lines, f"The answer is \\boxed{{{self.answer}}}."]

    @property
    def solution(self) -> str:
        return "\n\n".join(self.pieces)


# --- the split -------------------------------------------------------------


def fnv1a64(text: str) -> int:
    """FNV-1a, 64 bits, over the UTF-8 bytes of `text`."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def split_of(text: str) -> str:
    """Which side `text` is on: hash % 16 is 0 held-out, 1 validation, else train."""
    return {0: "heldout", 1: "validation"}.get(fnv1a64(text) % 16, "train")


# --- the generator ---------------------------------------------------------


def _operand(rng: random.Random, most: int) -> int:
    """1..most, mostly of at most two digits."""
    return rng.randint(1, min(most, 99) if rng.random() < 0.7 else most)


class _Story:
    """A running value, the sentences told so far and the steps they cost."""

    def __init__(self, rng: random.Random, budget: int, start: int):
        self.rng, self.budget, self.value = rng, budget, start
        self.sentences: list[str] = []
        self.steps: list[str] = []

    def left(self) -> int:
        return self.budget - len(self.steps)

    def apply(self, op: str, operand: int) -> None:
        before = self.value
        self.value = {
            "+": before + operand,
            "-": before - operand,
            "*": before * operand,
            "/": before // operand,
        }[op]
        self.steps.append(f"{before} {op} {operand} = {self.value}")

    def add(self, sentences: list[str]) -> None:
        k = _operand(self.rng, MAX_VALUE - self.value)
        self.sentences.append(self.rng.choice(sentences).format(k=k))
        self.apply("+", k)

    def take(self, sentences: list[str]) -> None:
        k = _operand(self.rng, self.value)
        self.sentences.append(self.rng.choice(sentences).format(k=k))
        self.apply("-", k)

    def times(self, sentence: str) -> None:
        k = self.rng.randint(2, min(9, MAX_VALUE // self.value))
        self.sentences.append(sentence.format(k=k))
        self.apply("*", k)

    def share(self, sentence: str) -> None:
        k = self.rng.choice(_divisors(self.value))
        self.sentences.append(sentence.format(k=k))
        self.apply("/", k)

    def trade(self, buy: str, give_back: str) -> None:
        """k things at p dollars each: a product, then the bill goes up or down."""
        k = self.rng.randint(2, 9)
        up = self.rng.random() < 0.5
        room = MAX_VALUE - self.value if up else self.value
        if room < 2 * k:
            up, room = not up, MAX_VALUE - room
        p = self.rng.randint(2, min(99, room // k))
        goods = self.rng.choice(GOODS)
        self.sentences.append((buy if up else give_back).format(k=k, p=p, goods=goods))
        self.steps.append(f"{k} * {p} = {k * p}")
        self.apply("+" if up else "-", k * p)

    def add_or_take(self, adds: list[str], takes: list[str]) -> None:
        up = self.rng.random() < 0.5
        if self.value == 0 or (up and self.value < MAX_VALUE):
            self.add(adds)
        else:
            self.take(takes)


def _divisors(value: int) -> list[int]:
    return [k for k in range(2, 10) if value and value % k == 0]


def _counting(rng: random.Random, steps: int) -> tuple[_Story, str, str]:
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    story = _Story(rng, steps, rng.randint(2, 99))
    opening = f"{name} has {story.value} {things}."
    while story.left():
        if 2 <= story.value <= MAX_VALUE // 2 and rng.random() < 0.5:
            story.times("They grow to {k} times as many.")
        else:
            story.add_or_take(
                [f"{name} gets {{k}} more.", f"{name} finds {{k}}."],
                [f"{name} gives away {{k}}.", f"{name} loses {{k}}."],
            )
    return story, opening, f"How many {things} does {name} have?"


def _shopping(rng: random.Random, steps: int) -> tuple[_Story, str, str]:
    story = _Story(rng, steps, _operand(rng, MAX_VALUE))
    opening = f"A bill is {story.value} dollars."
    while story.left():
        if story.left() >= 2 and rng.random() < 0.7:
            story.trade(
                "Add {k} {goods} at {p} dollars each.",
                "Return {k} {goods} at {p} dollars each.",
            )
        else:
            story.add_or_take(
                ["Shipping adds {k} dollars.", "A tax adds {k} dollars."],
                ["A coupon takes off {k} dollars.", "A refund takes off {k} dollars."],
            )
    return story, opening, "How many dollars is the bill?"


def _sharing(rng: random.Random, steps: int) -> tuple[_Story, str, str]:
    things = rng.choice(THINGS)
    story = _Story(rng, steps, rng.randint(2, MAX_VALUE))
    opening = f"A crew has {story.value} {things}."
    while story.left():
        if story.value >= 30 and _divisors(story.value) and rng.random() < 0.7:
            story.share("They keep one part in {k}.")
        elif 2 <= story.value <= MAX_VALUE // 2 and rng.random() < 0.4:
            story.times("Each turns into {k}.")
        else:
            story.add_or_take(
                ["Then {k} more come in.", "They make {k} more."],
                ["Then {k} break.", "They sell {k}."],
            )
    return story, opening, f"How many {things} are left?"


SUBJECTS = {"Counting": _counting, "Shopping": _shopping, "Sharing": _sharing}


def make_problem(rng: random.Random, steps: int, side: str) -> Problem:
    """A problem of exactly `steps` steps whose text is on `side` of the split."""
    while True:
        subject = rng.choice(list(SUBJECTS))
        story, opening, question = SUBJECTS[subject](rng, steps)
        text = " ".join([opening, *story.sentences, question])
        if split_of(text) == side:
            return Problem(subject, text, tuple(story.steps), story.value)


def problem_set(side: str, per_level: int, seed: int) -> list[Problem]:
    """`per_level` different problems of each level, level by level."""
    rng = random.Random(f"{side}-{seed}")
    found: dict[str, Problem] = {}
    for level, (low, high) in STEPS_OF_LEVEL.items():
        while sum(p.level == level for p in found.values()) < per_level:
            problem = make_problem(rng, rng.randint(low, high), side)
            found[problem.text] = problem
    return list(found.values())


# --- checking a solution ---------------------------------------------------


def labels(problem: Problem, pieces: list[str]) -> list[int]:
    """1 for every piece up to the first one that leaves the true path, then 0."""
    truth = problem.pieces
    on_path, out = True, []
    for i, piece in enumerate(pieces):
        on_path = on_path and i < len(truth) and piece.strip() == truth[i]
        out.append(int(on_path))
    return out


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1] if found else None


def _check(problem: Problem) -> None:
    """Execute the solution text: every line must hold, the last must be the answer."""
    for step in problem.steps:
        a, op, b, _, c = step.split()
        a, b, c = int(a), int(b), int(c)
        exact = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
        assert exact == c and 0 <= c <= MAX_VALUE, step
        assert op != "/" or a % b == 0, step
    assert int(problem.steps[-1].split()[-1]) == problem.answer
    assert boxed(problem.solution) == str(problem.answer)


if __name__ == "__main__":
    rng, shown = random.Random(0), set()
    for n in range(20_000):
        problem = make_problem(rng, 1 + n % MAX_STEPS, "train")
        _check(problem)
        if problem.subject not in shown and len(problem.steps) == 5:
            shown.add(problem.subject)
            print(f"[{problem.subject}, level {problem.level}]\n{problem.text}\n\n{problem.solution}\n")
    print("20000 problems: every solution executes to its answer")
