"""Makes tests/golden/data/smollm2/greedy.json: greedy text of SmolLM2-135M-Instruct as transformers has it.

    python bench/real/convert.py smollm2-135m
    python tests/golden/make_smollm.py target/real/smollm2-135m

20 prompts of several lengths and forms, with what the chat template makes of them, 64 tokens each
by argmax in f32 on the stored bf16 weights (end-of-text is a token like any other), and the
log-probability of every one. A prompt for which two tokens ever come within MIN_MARGIN of each
other is left out: f32 in another order of summation might choose the other.
"""

import json
import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).parent
TOKENS = 64
MIN_MARGIN = 2e-3
COUNT = 20

PROMPTS = [
    "What is 2 + 2?",
    "Eli has 47 coins. The coins then grow to 5 times as many. How many coins does Eli have?",
    "Write a haiku about the sea.",
    "Why is the sky blue?",
    "List three prime numbers and say why each is prime.",
    "Translate 'good morning' into French.",
    "Explain recursion to a child in two sentences.",
    "What is the derivative of x^2 + 3x?",
    "Solve for x: 3x - 7 = 11.",
    "Name the planets of the solar system in order.",
    "How do I boil an egg?",
    "def fibonacci(n):",
    "Give me a short story about a fox and a lantern.\n\nMake it sad.",
    "Quelle est la capitale de l'Italie ?",
    "A train leaves at 9:15 and arrives at 11:40. How long is the trip?",
    "What is the area of a circle with radius 3?",
    "Convert 0.375 to a fraction.",
    "Who wrote Romeo and Juliet?",
    "数学は何ですか？",
    "Compare cats and dogs as pets.",
    "What comes after Monday?",
    "Summarise: the quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "1, 1, 2, 3, 5, 8, what is next?",
    "Is 91 a prime number?",
    "Write one sentence with the words lamp, river and clock.",
    "What is the sum of the first ten odd numbers?",
    "Tell me a joke about statisticians.",
    "How many minutes are in a week?",
]


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    source = sys.argv[1]
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    rows = []
    for prompt in PROMPTS:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        given, tokens, logprobs, margin = list(ids), [], [], float("inf")
        cache = transformers.DynamicCache()
        for _ in range(TOKENS):
            logits = model(torch.tensor([given]), past_key_values=cache, use_cache=True).logits[0, -1]
            top = logits.topk(2).values
            margin = min(margin, float(top[0] - top[1]))
            tokens.append(int(logits.argmax()))
            logprobs.append(float(logits.log_softmax(-1)[tokens[-1]]))
            given = tokens[-1:]
        print(f"{margin:.4f} {tokenizer.decode(tokens)[:60]!r}", flush=True)
        if margin >= MIN_MARGIN and len(rows) < COUNT:
            rows.append({"prompt": prompt, "text": text, "ids": ids, "tokens": tokens, "logprobs": logprobs})
    assert len(rows) == COUNT, len(rows)
    made = f"transformers {transformers.__version__}, torch {torch.__version__}"
    golden = {"made_with": made, "rows": rows}
    (HERE / "data" / "smollm2" / "greedy.json").write_text(json.dumps(golden, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
