"""How far a quantised checkpoint is from what it was made of, as transformers reads both:

    python logits.py DIR QUANTISED...

Needs torch, transformers and compressed-tensors. Everything is computed in f32, so what differs is the
weights alone (Offshoot quantises activations as well). The text is the start of this repository's README.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = (Path(__file__).parents[2] / "README.md").read_text()[:1500]


@torch.no_grad()
def logits(folder, ids):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits[0]


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: python logits.py DIR QUANTISED...")
    ids = AutoTokenizer.from_pretrained(sys.argv[1])(TEXT, return_tensors="pt").input_ids

    def loss(of):
        return torch.nn.functional.cross_entropy(of[:-1], ids[0, 1:]).item()

    exact = logits(sys.argv[1], ids)
    print(f"{sys.argv[1]}: mean negative log-likelihood {loss(exact):.4f}")
    for folder in sys.argv[2:]:
        out = logits(folder, ids)
        difference = ((out - exact).norm() / exact.norm()).item()
        same = (out.argmax(-1) == exact.argmax(-1)).float().mean().item()
        print(
            f"{folder}: relative difference {difference:.4f}, same most likely token {same:.1%}, "
            f"mean negative log-likelihood {loss(out):.4f}"
        )


if __name__ == "__main__":
    main()
