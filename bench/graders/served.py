"""Serves a comparison of two answers as `offshoot grade --external` asks for it.

Reads {"answer": ..., "prediction": ...}, a JSON object a line, from standard input and writes
{"correct": true}, false or null (no verdict within the deadline) for each, in order.

Pairs are compared in a second process, which is killed and replaced when a pair takes longer than
the deadline: sympy can hang where no signal reaches it.
"""

import json
import logging
import multiprocessing
import sys
from collections.abc import Callable

Compare = Callable[[str, str], bool]


def work(pipe, make: Callable[..., Compare], arguments: tuple) -> None:
    """Compares the pairs that come through the pipe."""
    logging.disable(logging.CRITICAL)
    compare = make(*arguments)
    pipe.send(None)  # ready
    while True:
        try:
            answer, prediction = pipe.recv()
        except EOFError:
            return  # the parent is done
        try:
            pipe.send(bool(compare(answer, prediction)))
        except Exception:  # what it cannot read it does not find equal
            pipe.send(False)


class Worker:
    """The second process."""

    def __init__(self, make: Callable[..., Compare], arguments: tuple) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # its imports take seconds; a failed one is an EOFError here

    def compare(self, answer: str, prediction: str, deadline: float) -> bool | None:
        self.pipe.send((answer, prediction))
        try:
            return self.pipe.recv() if self.pipe.poll(deadline) else None
        except EOFError:
            return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def serve(make: Callable[..., Compare], arguments: tuple, deadline: float) -> None:
    """Answers every line of standard input with what the comparison that `make` makes says."""
    worker = Worker(make, arguments)
    for line in sys.stdin:
        pair = json.loads(line)
        correct = worker.compare(pair["answer"], pair["prediction"], deadline)
        if correct is None:
            worker.end()
            worker = Worker(make, arguments)
        print(json.dumps({"correct": correct}), flush=True)
