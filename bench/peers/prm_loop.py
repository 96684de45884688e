"""What a PRM costs that reads whole texts again at every step: a transformers loop, timed.

    prm_loop.py DIR --prompt P --steps S --step-tokens T --batch B --threads N --dtype float32

For every step s of S, B texts of P + s T tokens each go through the model in one batch, without a
cache, and the two rows of the head that a PRM is read at are computed at the last position alone.
Prints seconds and tokens as JSON. The texts are random tokens: all of one length, so nothing is padded.
"""

import argparse
import json
import os
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    for name in ("prompt", "steps", "step-tokens", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    dtype = getattr(torch, flags.dtype)
    model = AutoModelForCausalLM.from_pretrained(flags.model, dtype=dtype, attn_implementation="sdpa").eval()
    head = model.get_output_embeddings().weight[:2]
    generator = torch.Generator().manual_seed(0)
    length = flags.prompt + flags.steps * flags.step_tokens
    texts = torch.randint(0, model.config.vocab_size, (flags.batch, length), generator=generator)

    def scores(upto):
        hidden = model.model(input_ids=texts[:, :upto], use_cache=False).last_hidden_state
        return (hidden[:, -1] @ head.T).float().softmax(-1)

    with torch.inference_mode():
        scores(flags.prompt)
        load = os.getloadavg()[0]
        start = time.monotonic()
        tokens = 0
        for step in range(1, flags.steps + 1):
            upto = flags.prompt + step * flags.step_tokens
            scores(upto)
            tokens += flags.batch * upto
        seconds = time.monotonic() - start
    print(json.dumps({"seconds": seconds, "tokens": tokens, "load_before": load}))


if __name__ == "__main__":
    main()
