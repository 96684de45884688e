"""math-verify (PyPI) as an external grader of `offshoot grade --external`.

    pip install -r bench/graders/requirements.txt
    offshoot grade --external "python3 bench/graders/math_verify_grader.py" FILE.jsonl

`served.py` beside this file has the protocol and the deadline per pair.
"""

import argparse

import served


def comparison() -> served.Compare:
    from math_verify import parse, verify

    def read(text: str):
        # As a solution would give it; timeouts are the parent's affair.
        return parse("\\boxed{" + text + "}", parsing_timeout=None)

    return lambda answer, prediction: verify(read(answer), read(prediction), timeout_seconds=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds per pair (default 5)")
    served.serve(comparison, (), parser.parse_args().deadline)
