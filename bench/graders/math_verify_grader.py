"""math-verify (PyPI) as an external grader of `offshoot grade --external`.

Reads {"answer": ..., "prediction": ...}, a JSON object a line, from standard input and writes
{"correct": true}, false or null (no verdict within the deadline) for each, in order.

    pip install math-verify
    offshoot grade --external "python3 bench/graders/math_verify_grader.py" FILE.jsonl

Pairs are compared in a second process, which is killed and replaced when a pair takes longer than
the deadline: sympy can hang where no signal reaches it.
"""

import argparse
import json
import logging
import multiprocessing
import sys


def work(pipe) -> None:
    """Compares the pairs that come through the pipe."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    while True:
        try:
            answer, prediction = pipe.recv()
        except EOFError:
            return  # the parent is done
        try:
            # Both as a solution would give them; timeouts are the parent's affair.
            gold, found = (
                parse("\\boxed{" + text + "}", parsing_timeout=None) for text in (answer, prediction)
            )
            pipe.send(bool(verify(gold, found, timeout_seconds=None)))
        except Exception:  # what it cannot read it does not find equal
            pipe.send(False)


class Worker:
    """The second process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def compare(self, answer: str, prediction: str, deadline: float) -> bool | None:
        self.pipe.send((answer, prediction))
        try:
            if self.pipe.poll(deadline):
                return self.pipe.recv()
        except EOFError:
            pass
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds per pair (default 5)")
    deadline = parser.parse_args().deadline
    worker = Worker()
    worker.compare("1", "1", 120.0)  # the first comparison pays for the imports
    for line in sys.stdin:
        pair = json.loads(line)
        correct = worker.compare(pair["answer"], pair["prediction"], deadline)
        if correct is None:
            worker.end()
            worker = Worker()
            worker.compare("1", "1", 120.0)
        print(json.dumps({"correct": correct}), flush=True)


if __name__ == "__main__":
    main()
