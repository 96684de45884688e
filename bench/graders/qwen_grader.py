"""The Qwen2.5-Math grader, as the paper's code has it, as an external grader of `offshoot grade`.

    git clone https://github.com/RyanLiu112/compute-optimal-tts
    pip install sympy antlr4-python3-runtime==4.11.1 word2number regex
    offshoot grade --grader qwen --external \
        "python3 bench/graders/qwen_grader.py compute-optimal-tts" FILE.jsonl

`served.py` beside this file has the protocol and the deadline per pair.
"""

import argparse
import sys

import served


def comparison(repository: str) -> served.Compare:
    folder = repository + "/src/envs/MATH"
    sys.path[:0] = [folder, folder + "/latex2sympy"]
    from grader import math_equal
    from parse_utils_qwen import extract_answer

    def read(text: str) -> str:
        return extract_answer("\\boxed{" + text + "}", data_name="math")

    return lambda answer, prediction: math_equal(read(prediction), read(answer))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", help="a checkout of compute-optimal-tts")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds per pair (default 5)")
    arguments = parser.parse_args()
    served.serve(comparison, (arguments.repository,), arguments.deadline)
