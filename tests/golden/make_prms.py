"""Makes tests/golden/data/prms: PRMs of every read-out with random weights, and what PyTorch and
transformers score with them. Run once, committed.

    python tests/golden/make_prms.py                     # all of them
    python tests/golden/make_prms.py skywork-f32         # or some

Every reference here is the published way to use such a checkpoint, written out plainly: the whole
text is encoded, computed in one forward pass without a cache, and read at its markers. README.md
next to this file says what every file holds. Everything is seeded; a second run with the same
versions writes the same bytes.
"""

import json
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
)

from make import CORPUS, DATA, FixedDate, byte_fallback_tokenizer, cast, fill, old_style_config

PRMS = DATA / "prms"
# Of a score. Transformers' own bf16 run is off by up to this: clearly less than the 2e-2 that an
# engine is allowed.
MAX_BF16_ERROR = 1.2e-2

REASON_STEP_BY_STEP = "Please reason step by step, and put your final answer within \\boxed{}."

SOLUTIONS = [
    ("What is 2 + 2?", ["The answer is \\boxed{4}."]),
    (
        "Eli has 47 coins. The coins then grow to 5 times as many. Eli gives away 19. How many are left?",
        [
            "Step 1: 47 * 5 = 235.",
            "Step 2: 235 - 19 = 216.",
            "Step 3: So that Eli has 216 coins.",
            "- check: 216 + 19 = 235",
            "+ and 235 / 5 = 47.",
            "The answer is \\boxed{216}.",
        ],
    ),
    (
        "The sum of the first n odd numbers is n^2.\nFind it for n = 12:",
        [
            "Step 1: The sum is\n12^2 = 12 * 12\n= 144.",
            "  The answer is then:\n\\boxed{144}  ",
        ],
    ),
    (
        "Сколько будет ½ от 46? — “naïve” cafe\u0301, 数学",
        [
            "Шаг 1: 46 ⋅ ½ = 23 ки.",
            "数学の問題：23 😀 = \\boxed{23}",
            "naïve façade — e\u0301\u200b.",
        ],
    ),
    (
        "A crew has 509 stamps. They make 322 more. How many stamps are there? ",
        ["Step 1: 509 + 322 = 831.", "The answer is 831.", "It is 831, ki."],
    ),
]


# Tokenizers.

QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")
# Words before blank lines too, so that a blank line becomes a token.
BYTE_LEVEL_CORPUS = CORPUS + "Then\n\nso that\n\nand\n\n" * 8


def byte_level(split, specials, normalizer=None, **roles):
    """Byte-level BPE as Llama 3 and Qwen 2 have it; `roles` are the special tokens by part."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([BYTE_LEVEL_CORPUS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def put_before(tokenizer, bos):
    """Makes the tokenizer begin every text with `bos`."""
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )
    return tokenizer


def mistral_tokenizer():
    corpus = CORPUS + " ки + - ки + - ки + - 1 + 1 ки" * 8
    return put_before(byte_fallback_tokenizer(corpus, 130), "<s>")


def llama3_tokenizer():
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(LLAMA_SPLIT, specials, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.chat_template = (DATA / "chat" / "llama3.jinja").read_text()
    return put_before(tokenizer, "<|begin_of_text|>")


def qwen_tokenizer(more=(), **roles):
    from tokenizers import normalizers

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more]
    tokenizer = byte_level(
        QWEN_SPLIT, specials, normalizers.NFC(), eos_token="<|im_end|>", pad_token="<|endoftext|>", **roles
    )
    tokenizer.chat_template = (DATA / "chat" / "qwen25.jinja").read_text()
    return tokenizer


# Read-outs. Each takes a problem and stripped steps and returns the whole text's ids, the positions
# that are read, and their scores.


def run(module, ids):
    return module(torch.tensor([ids]), use_cache=False)


def two_of(logits, first, second):
    """Softmax over two of the logits; the probability of the first."""
    return float(torch.softmax(logits[[first, second]], dim=-1)[0])


def math_shepherd(prm, tokenizer, problem, steps):
    marker = tokenizer.encode("ки", add_special_tokens=False)
    good, bad = tokenizer.encode("+ -", add_special_tokens=False)
    assert len(marker) == 1, marker
    ids = tokenizer.encode(f"{problem} " + "\n".join(f"{step} ки" for step in steps))
    assert ids[0] == tokenizer.bos_token_id
    # A step may have the marker's word in it: its own is the last before each line's end.
    at, end = [], 0
    for i in range(len(steps)):
        whole = tokenizer.encode(f"{problem} " + "\n".join(f"{step} ки" for step in steps[: i + 1]))
        end = len(whole) - 1
        assert ids[: end + 1] == whole and whole[-1] == marker[0]
        at.append(end)
    logits = run(prm, ids).logits[0]
    return ids, at, [two_of(logits[p], good, bad) for p in at]


def rlhflow(prm, tokenizer, problem, steps):
    [good] = tokenizer.encode("+", add_special_tokens=False)
    [bad] = tokenizer.encode("-", add_special_tokens=False)
    conversation, at, scores = [], [], []
    for i, step in enumerate(steps):
        content = f"{problem} {step}" if i == 0 else step
        conversation += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
        ids = tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
        # The turn ends with "+" and <|eot_id|>; what foretells "+" is one before.
        assert ids[-2:] == [good, tokenizer.convert_tokens_to_ids("<|eot_id|>")]
        at.append(len(ids) - 3)
        scores.append(two_of(run(prm, ids).logits[0, -3], good, bad))
    return ids, at, scores


def skywork(prm, tokenizer, problem, steps):
    ids = tokenizer.encode(tokenizer.bos_token + problem + "\n")
    newline = tokenizer.encode("\n")[-1]
    at = []
    for step in steps:
        ids += tokenizer.encode(step.replace("\n", " ")) + [newline]
        at.append(len(ids) - 1)
    values = prm.v_head(run(prm.model, ids).last_hidden_state[0])
    return ids, at, [float(torch.sigmoid(values[p, 0])) for p in at]


def qwen_math(prm, tokenizer, problem, steps):
    [marker] = tokenizer.encode("<extra_0>")
    messages = [
        {"role": "system", "content": REASON_STEP_BY_STEP},
        {"role": "user", "content": problem},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = tokenizer.encode(text)
    at = [i for i, token in enumerate(ids) if token == marker]
    logits = prm.score(run(prm.model, ids).last_hidden_state[0])
    return ids, at, [two_of(logits[p], 1, 0) for p in at]


def trl(prm, tokenizer, problem, steps):
    """As PRMTrainer encodes a row, with step_separator "\\n\\n"."""
    ids = tokenizer(problem, add_special_tokens=False)["input_ids"]
    [separator] = tokenizer.encode("\n\n", add_special_tokens=False)
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id] + ids
    at = []
    for step in steps:
        ids += tokenizer(step, add_special_tokens=False)["input_ids"] + [separator]
        at.append(len(ids) - 1)
    logits = run(prm, ids).logits[0]
    return ids, at, [two_of(logits[p], 1, 0) for p in at]


# Models.

SIZE = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


class ValueHead(torch.nn.Module):
    """What TRL adds to a model, and Skywork's PRMs have."""

    def __init__(self, hidden):
        super().__init__()
        self.summary = torch.nn.Linear(hidden, 1)

    def forward(self, x):
        return self.summary(x)


def rope(theta=10000.0, **scaling):
    return dict(rope_type="default", rope_theta=theta, **scaling)


def mistral(tokenizer):
    config = MistralConfig(**SIZE, rope_parameters=rope(), sliding_window=24, rms_norm_eps=1e-5)
    return MistralForCausalLM, config


def llama(tokenizer):
    scaling = dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    parameters = {**rope(500000.0), "rope_type": "llama3", **scaling}
    return LlamaForCausalLM, LlamaConfig(**SIZE, rope_parameters=parameters, rms_norm_eps=1e-5)


def qwen2(tied, eps=1e-6, labels=None):
    def body(tokenizer):
        config = Qwen2Config(**SIZE, rope_parameters=rope(), rms_norm_eps=eps, tie_word_embeddings=tied)
        if labels:
            config.num_labels = labels
        return (Qwen2ForTokenClassification if labels else Qwen2ForCausalLM), config

    return body


def with_value_head(model):
    model.v_head = ValueHead(model.config.hidden_size)


def with_process_head(model):
    hidden = model.config.hidden_size
    model.score = torch.nn.Sequential(torch.nn.Linear(hidden, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))


# name, model, head beside it, tokenizer, read-out, what config.json says more, shard size
CASES = [
    ("math-shepherd-mistral-f32", mistral, None, mistral_tokenizer, math_shepherd, {}, None),
    ("llama3.1-8b-prm-f32", llama, None, llama3_tokenizer, rlhflow, {}, "60KB"),
    (
        "skywork-f32",
        qwen2(tied=True),
        with_value_head,
        lambda: qwen_tokenizer(bos_token="<|endoftext|>"),
        skywork,
        dict(architectures=["Qwen2ForPrmModel"]),
        None,
    ),
    *(
        (
            name,
            qwen2(tied=False, eps=1e-5),
            with_process_head,
            lambda: qwen_tokenizer(["<extra_0>"]),
            qwen_math,
            dict(
                architectures=["Qwen2ForProcessRewardModel"],
                auto_map={
                    "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
                    "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
                },
            ),
            None,
        )
        for name in ("qwen-math-bf16", "qwen-math-f32")
    ),
    ("trl-f32", qwen2(tied=True, labels=2), None, qwen_tokenizer, trl, {}, None),
]


def scores_of(read, prm, tokenizer):
    """Ids, positions and scores of every solution."""
    return [read(prm, tokenizer, problem, [step.strip() for step in steps]) for problem, steps in SOLUTIONS]


def flat(rows):
    return torch.tensor([score for _, _, scores in rows for score in scores], dtype=torch.float64)


@torch.no_grad()
def make_case(name, body, head, make_tokenizer, read, more, shard):
    transformers.utils.chat_template_utils.datetime = FixedDate
    tokenizer = make_tokenizer()
    half = name.endswith("bf16")
    for seed in range(1000):
        architecture, config = body(tokenizer)
        config.vocab_size = -(-len(tokenizer) // 16) * 16
        config.max_position_embeddings = 1024
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, tokenizer.eos_token_id, None
        if name.startswith("math-shepherd"):
            config.bos_token_id = tokenizer.bos_token_id
        config._attn_implementation = "eager"
        model = architecture(config).eval()
        if head:
            head(model)
        fill(model, seed, gain=1.0 if half else 1.6)
        # Heads that spread the scores over (0, 1) without coming near its ends.
        for part, factor in (("v_head", 1.0), ("score", 3.0), ("lm_head", 2.0)):
            if head != with_process_head and hasattr(model, part):
                for p in getattr(model, part).parameters():
                    p.mul_(factor)
        if head == with_process_head:
            model.score[0].weight.mul_(1.5)
            model.score[2].weight.mul_(1.5)
        if half:
            model = cast(model, torch.bfloat16)
            in_half = scores_of(read, model, tokenizer)
            model = cast(model, torch.float32)  # the stored weights, computed with in f32
        rows = scores_of(read, model, tokenizer)
        exact = flat(scores_of(read, cast(model, torch.float64), tokenizer))
        model = cast(model, torch.float32)
        found = flat(rows)
        error = {"f32": float(((found - exact) / exact).abs().max())}
        if half:
            error["bf16"] = float(((flat(in_half) - exact) / exact).abs().max())
            if error["bf16"] > MAX_BF16_ERROR:
                continue
        if found.min() > 0.03 and found.max() < 0.97 and found.std() > 0.12:
            break
    else:
        raise SystemExit(f"{name}: no seed gives scores that differ and are not close to 0 or 1")

    directory = PRMS / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    golden = {
        "seed": seed,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "largest_relative_error_of_transformers": error,
        "solutions": [
            {"problem": problem, "steps": steps, "input_ids": ids, "read_at": at, "scores": scores}
            for (problem, steps), (ids, at, scores) in zip(SOLUTIONS, rows)
        ],
    }
    if half:
        for row, (_, _, scores) in zip(golden["solutions"], in_half):
            row["scores_bf16"] = scores
        model = cast(model, torch.bfloat16)
    tokenizer.save_pretrained(directory)
    if head:
        # These classes are their publishers' own: the tensors as their files have them.
        model.config.dtype = "bfloat16" if half else "float32"
        model.config.save_pretrained(directory)
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        model.save_pretrained(directory, max_shard_size=shard or "1GB")
    path = directory / "config.json"
    old_style_config(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}, indent=2) + "\n")
    (directory / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{name}: seed {seed}, {error}, scores {found.min():.3f} to {found.max():.3f}, {size} bytes")


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for case in CASES:
        if not sys.argv[1:] or case[0] in sys.argv[1:]:
            make_case(*case)


if __name__ == "__main__":
    main()
