"""Makes the golden files of tests/golden/data: run once with PyTorch and transformers, committed.

    python tests/golden/make.py            # everything
    python tests/golden/make.py models     # or one part: models, hidden, tokenizers, chat
    python tests/golden/make.py models qwen3-g1-untied-f32     # or some of the models

README.md next to this file says what every file holds. Everything is seeded; a second run with the
same versions writes the same bytes.
"""

import datetime
import json
import pathlib
import shutil
import sys

import numpy
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data"
VOCAB = 320
INPUT_TOKENS = 33  # two blocks of 16 and one token
HIDDEN_POSITIONS = [0, 15, 16, 32]
PROMPT_TOKENS = 17
GREEDY_TOKENS = 64
# f32 runs of transformers are off by about 1e-5 in a logit: a choice 500 times clearer is safe.
MIN_MARGIN = 0.005
MIN_DISTINCT = 32
# What transformers' own bf16 run may be off from the exact result: clearly less than the 2e-2
# that an engine is allowed against either.
MAX_BF16_ERROR = 1.2e-2

SMALL = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2)
LARGE = dict(hidden_size=64, intermediate_size=80, num_hidden_layers=2)

CONFIGS = {
    "Gemma3": Gemma3TextConfig,
    "Llama": LlamaConfig,
    "Mistral": MistralConfig,
    "Qwen2": Qwen2Config,
    "Qwen3": Qwen3Config,
}
# Scaling that tells at positions 0 to 80: of 4 to 8 pairs some are stretched, some are not and
# some lie between.
LLAMA3 = dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)

# Gemma 3: five layers with a window, then one without.
GEMMA = dict(SMALL, num_hidden_layers=6)
GEMMA_LARGE = dict(LARGE, num_hidden_layers=7)
LINEAR = dict(rope_type="linear", factor=8.0)

# name, architecture, size, heads, kv heads, head_dim, options
CASES = [
    ("llama-g1-tied-f32", LlamaForCausalLM, SMALL, 4, 4, 8, dict(tied=True)),
    ("llama-g2-untied-bf16", LlamaForCausalLM, SMALL, 4, 2, 16, dict(bf16=True)),
    ("llama-g4-untied-f32-sharded", LlamaForCausalLM, LARGE, 8, 2, 16, dict(shard="150KB")),
    ("llama-g8-tied-bf16", LlamaForCausalLM, LARGE, 8, 1, 16, dict(tied=True, bf16=True, theta=500000.0, eps=1e-5)),
    ("llama-g2-biased-f32", LlamaForCausalLM, SMALL, 4, 2, 8, dict(biased=True)),
    ("qwen2-g1-untied-bf16", Qwen2ForCausalLM, SMALL, 4, 4, 8, dict(bf16=True)),
    ("qwen2-g2-tied-f32", Qwen2ForCausalLM, SMALL, 6, 3, 16, dict(tied=True, theta=1000000.0, old_config=True)),
    ("qwen2-g4-tied-bf16-sharded", Qwen2ForCausalLM, LARGE, 8, 2, 8, dict(tied=True, bf16=True, shard="100KB")),
    ("qwen2-g8-untied-f32", Qwen2ForCausalLM, LARGE, 8, 1, 16, dict(eps=1e-5)),
    ("llama-g2-untied-f16", LlamaForCausalLM, SMALL, 4, 2, 16, dict(f16=True)),
    ("llama3-g2-untied-f32", LlamaForCausalLM, SMALL, 4, 2, 8, dict(llama3=True, theta=500000.0, old_config=True)),
    ("llama3-g4-tied-bf16", LlamaForCausalLM, LARGE, 8, 2, 16, dict(llama3=True, theta=10000.0, tied=True, bf16=True)),
    ("mistral-g2-untied-bf16", MistralForCausalLM, SMALL, 4, 2, 16, dict(bf16=True, more=dict(sliding_window=None))),
    ("mistral-g4-untied-f32", MistralForCausalLM, LARGE, 8, 2, 16, dict(more=dict(sliding_window=9))),
    ("mistral-g8-tied-bf16", MistralForCausalLM, LARGE, 8, 1, 8, dict(bf16=True, tied=True, more=dict(sliding_window=16))),
    ("qwen2-g2-untied-f32-window", Qwen2ForCausalLM, SMALL, 4, 2, 8, dict(more=dict(use_sliding_window=True, sliding_window=7, max_window_layers=1))),
    ("qwen3-g1-untied-f32", Qwen3ForCausalLM, SMALL, 4, 4, 16, dict(theta=1000000.0)),
    ("qwen3-g2-tied-f32", Qwen3ForCausalLM, LARGE, 6, 3, 8, dict(tied=True)),
    ("qwen3-g8-untied-bf16", Qwen3ForCausalLM, LARGE, 8, 1, 16, dict(bf16=True)),
    ("gemma3-g1-tied-f32", Gemma3ForCausalLM, GEMMA, 4, 4, 8, dict(tied=True, gemma=dict(sliding_window=9))),
    ("gemma3-g2-tied-bf16", Gemma3ForCausalLM, dict(SMALL, num_hidden_layers=3), 4, 2, 16, dict(tied=True, bf16=True, embedding=0.02, gemma=dict(sliding_window=12, query_pre_attn_scalar=21, layer_types=["sliding_attention", "sliding_attention", "full_attention"]))),
    ("gemma3-g4-tied-f32", Gemma3ForCausalLM, GEMMA_LARGE, 8, 2, 8, dict(tied=True, old_config=True, embedding=0.02, gemma=dict(sliding_window=16, scaling=LINEAR))),
    ("gemma3-g8-untied-bf16", Gemma3ForCausalLM, dict(LARGE, num_hidden_layers=3), 8, 1, 16, dict(bf16=True, eps=1e-5, gemma=dict(sliding_window=7, scaling=LINEAR, query_pre_attn_scalar=8, layer_types=["full_attention", "sliding_attention", "full_attention"]))),
    ("llama-g2-score2-f32", LlamaForTokenClassification, SMALL, 4, 2, 16, dict(labels=2)),
    ("qwen2-g4-score2-f32", Qwen2ForTokenClassification, LARGE, 8, 2, 8, dict(labels=2)),
    ("qwen2-g2-score3-bf16", Qwen2ForTokenClassification, SMALL, 4, 2, 8, dict(labels=3, bf16=True)),
]


def fill(model, seed, gain, embedding):
    """Random weights of a size at which every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    gemma = "Gemma" in type(model).__name__
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                # Gemma stores the weights of its norms less 1. Its embedding is so small that a tied
                # model doesn't repeat its last token for ever, its last norm so much larger.
                one = (0.15 / embedding if name == "model.norm.weight" else 0) if gemma else 1
                p.copy_(one + 0.2 * noise)
            elif "embed_tokens" in name:
                p.copy_(embedding * noise)
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif "score" in name or "lm_head" in name:
                p.copy_(0.2 * noise)
            else:
                p.copy_(gain / p.shape[1] ** 0.5 * noise)
    return generator


def cast(model, dtype):
    """The weights in another type. As in a loaded checkpoint, and unlike `model.to`, the rotary
    frequencies stay f32: rounded to bf16 they are another model's. Gemma's scale of the embedding is
    rounded, and stays so: transformers rounds it to the weights' type."""
    rotary = model.model.rotary_emb
    frequencies = {name: buffer.clone() for name, buffer in rotary.named_buffers()}
    model = model.to(dtype)
    for name, buffer in frequencies.items():
        setattr(rotary, name, buffer)
    return model


def greedy(model, prompt):
    """Greedy continuation from whole forward passes: tokens and the smallest lead of a winner."""
    tokens, margin = list(prompt), float("inf")
    for _ in range(GREEDY_TOKENS):
        logits = model(torch.tensor([tokens])).logits[0, -1]
        top = logits.topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
        if margin < MIN_MARGIN:
            break  # another seed is tried
    return tokens[len(prompt) :], margin


def periodic(tokens):
    """Whether the last half repeats with a short period: such a run tests little."""
    tail = tokens[len(tokens) // 2 :]
    return any(tail[p:] == tail[:-p] for p in range(1, 12))


@torch.no_grad()
def make_case(name, architecture, size, heads, kv_heads, head_dim, options):
    config_class = CONFIGS[architecture.__name__.split("For")[0]]
    rope = dict(rope_type="default", rope_theta=options.get("theta", 10000.0))
    if options.get("llama3"):
        rope.update(rope_type="llama3", **LLAMA3)
    gemma = dict(options.get("gemma", {}))
    if "gemma" in options:
        rope = dict(
            full_attention=dict(rope_theta=1000000.0, **gemma.pop("scaling", dict(rope_type="default"))),
            sliding_attention=dict(rope_theta=10000.0, rope_type="default"),
        )
        gemma.setdefault("query_pre_attn_scalar", head_dim)
    labels = options.get("labels")
    fields = dict(
        size,
        vocab_size=VOCAB,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=128,
        rms_norm_eps=options.get("eps", 1e-6),
        rope_parameters=rope,
        tie_word_embeddings=options.get("tied", False),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        **options.get("more", {}),
        **gemma,
    )
    if options.get("biased"):
        fields.update(attention_bias=True, mlp_bias=True)
    if labels:
        fields["num_labels"] = labels
    half = torch.bfloat16 if options.get("bf16") else torch.float16 if options.get("f16") else None
    short = "bf16" if options.get("bf16") else "f16"
    for seed in range(1000):
        model = architecture(config_class(**fields)).eval()
        # Each layer amplifies rounding by about the gain: bf16 needs a tamer model.
        embedding = options.get("embedding", 0.05 if gemma else 0.12)
        generator = fill(model, seed, 1.0 if half else 1.6, embedding)
        inputs = torch.randint(2, VOCAB, (INPUT_TOKENS,), generator=generator)
        if half:
            model = cast(model, half)
            in_half = model(inputs[None]).logits[0].float()
            model = cast(model, torch.float32)  # the stored weights, computed with in f32
        output = model(inputs[None]).logits[0]
        exact = cast(model, torch.float64)(inputs[None]).logits[0]
        model = cast(model, torch.float32)
        error = {"f32": float((output - exact).norm() / exact.norm())}
        if half:
            error[short] = float((in_half - exact).norm() / exact.norm())
            if error[short] > MAX_BF16_ERROR:
                continue
        if labels:
            break
        tokens, margin = greedy(model, inputs[:PROMPT_TOKENS].tolist())
        if margin >= MIN_MARGIN and len(set(tokens)) >= MIN_DISTINCT and not periodic(tokens) and 1 not in tokens:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a clear, varied greedy run")

    directory = DATA / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    kind = "scores" if labels else "logits"
    tensors = {kind: output.contiguous()}
    if half:
        tensors[f"{kind}_{short}"] = in_half.to(half)
    golden = {
        "architecture": architecture.__name__,
        "seed": seed,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "relative_error_of_transformers": error,
        "input_ids": inputs.tolist(),
    }
    if not labels:
        golden.update(prompt=inputs[:PROMPT_TOKENS].tolist(), greedy=tokens, smallest_margin=margin)
    stored = cast(model, half) if half else model
    stored.save_pretrained(directory, max_shard_size=options.get("shard", "1GB"))
    if options.get("old_config"):
        old_style_config(directory / "config.json")
    save_file(tensors, directory / "golden.safetensors")
    (directory / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(name, {k: v for k, v in golden.items() if k not in ("input_ids", "prompt", "greedy", "made_with")})


def make_hidden_states():
    """`hidden_states` of every model, in f32 from the stored weights, at HIDDEN_POSITIONS."""
    tensors = {}
    for name, architecture, *_ in CASES:
        golden = json.loads((DATA / name / "golden.json").read_text())
        # Loaded as stored, then widened: Gemma's embedding scale is rounded to the stored type.
        model = cast(architecture.from_pretrained(DATA / name, dtype="auto").eval(), torch.float32)
        inputs = torch.tensor(golden["input_ids"])
        output = model(inputs[None], output_hidden_states=True)
        layers = [layer[0, HIDDEN_POSITIONS] for layer in output.hidden_states]
        tensors[name] = torch.stack(layers).contiguous()
    (DATA / "hidden").mkdir(exist_ok=True)
    save_file(tensors, DATA / "hidden/hidden_states.safetensors")


def old_style_config(path):
    """Writes the config as transformers 4 did: torch_dtype, rope_theta and rope_scaling on top."""
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern", 6)
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config.pop("layer_types", None)
    # What follows from other fields, except Gemma's, whose default is another.
    if config["model_type"] != "gemma3_text" and config["hidden_size"] == config.get("head_dim", 0) * config["num_attention_heads"]:
        config.pop("head_dim")
    path.write_text(json.dumps(config, indent=2) + "\n")


# Tokenizers.

CORPUS = """Eli has 47 coins. The coins then grow to 5 times as many. Eli gives away 19.

Step 1: 47 * 5 = 235.

Step 2: 235 - 19 = 216. The answer is \\boxed{216}.

The sum of the first n odd numbers is n^2, so that the answer is then the square of n.
""" * 4

TEXTS = [
    "",
    " ",
    "Eli has 47 coins.",
    "Step 1: 47 * 5 = 235.\n\nStep 2: 235 - 19 = 216.\n\n",
    "The answer is \\boxed{297}.",
    "  leading and trailing  ",
    "a\tb\r\nc\n\n\nd",
    "naïve façade — “quotes” … ½",
    "数学の問題を解く",
    "👩‍🚀 and 🏳️‍🌈 and e\u0301",
    "1234567890 3.14159 1,000,000",
    "<|im_start|>user\nhi<|im_end|>\n",
    "marker <extra_0> inside<extra_0>",
    "don't DON'T we'll it's",
    "\u0000\u0007\u200b\ufeff",
]


def byte_level_tokenizer():
    """Byte-level BPE with Qwen2's split and digits alone; its bos is added as Llama-3's is."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = ["<|bos|>", "<|eos|>", "<|pad|>", "<extra_0>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>"
    )


def byte_fallback_tokenizer(corpus=CORPUS, pieces=120):
    """BPE as Llama-2 and Mistral have it: spaces as U+2581, unknown characters as bytes, and a
    decoder that strips the first space of a text."""
    from tokenizers import Tokenizer, models, normalizers, trainers

    marked = "▁" + corpus.replace(" ", "▁")
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(
        [word for word in marked.replace("▁", " ▁").split(" ")],
        trainers.BpeTrainer(vocab_size=pieces, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for piece in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(piece, len(vocab))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    text = json.loads(tokenizer.to_str())
    text["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    tokenizer = Tokenizer.from_str(json.dumps(text))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def make_tokenizers():
    for name, tokenizer in (("bpe", byte_level_tokenizer()), ("byte-fallback", byte_fallback_tokenizer())):
        directory = DATA / "tokenizers" / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        tokenizer.save_pretrained(directory)
        rows = []
        for text in TEXTS:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            rows.append(
                {
                    "text": text,
                    "ids": ids,
                    "ids_with_special": tokenizer(text)["input_ids"],
                    "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
                    "decoded_skip_special": tokenizer.decode(
                        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                    ),
                }
            )
        (directory / "round_trips.json").write_text(json.dumps(rows, indent=1) + "\n")
        print("tokenizer", name, len(tokenizer))


# Chat templates.

QUESTION = {"role": "user", "content": "What is 2 + 2?\n"}
SYSTEM = {"role": "system", "content": " Solve it. \\boxed{} <b>&amp;</b> 'é'\n"}
STEPS = {"role": "assistant", "content": "## Step 1: Add\n\n2 + 2 = 4.\n\n"}
CHATS = {
    "question": [QUESTION],
    "system": [SYSTEM, QUESTION],
    "turns": [SYSTEM, QUESTION, {"role": "assistant", "content": "4."}, {"role": "user", "content": "  And 3?"}],
    "partial": [QUESTION, STEPS],
    "partial_system": [SYSTEM, QUESTION, STEPS],
    "partial_word": [QUESTION, {"role": "assistant", "content": "The answer"}],
    "thought": [QUESTION, {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}, QUESTION],
    "wrong_order": [QUESTION, QUESTION],
    "empty_content": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "note": [{"role": "note", "content": "skip"}, QUESTION, STEPS],
}


class FixedDate(datetime.datetime):
    """The date a template sees in Offshoot: Llama-3.1's own default."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def make_chat():
    transformers.utils.chat_template_utils.datetime = FixedDate
    tokenizer = byte_level_tokenizer()
    directory = DATA / "chat"
    rows = []
    for path in sorted(directory.glob("*.jinja")):  # written by hand, in the dialects of real models
        tokenizer.chat_template = path.read_text()
        for chat, messages in CHATS.items():
            for generation, final in ((True, False), (False, False), (False, True)):
                if final != chat.startswith("partial"):
                    continue
                row = {
                    "template": path.name,
                    "chat": chat,
                    "messages": messages,
                    "add_generation_prompt": generation,
                    "continue_final": final,
                }
                try:
                    row["text"] = tokenizer.apply_chat_template(
                        messages,
                        tokenize=False,
                        add_generation_prompt=generation,
                        continue_final_message=final,
                    )
                except Exception as error:  # the message is part of the golden row
                    row["error"] = str(error).split("\n")[0]
                rows.append(row)
    header = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    (directory / "rendered.json").write_text(json.dumps({"special_tokens": header, "rows": rows}, indent=1) + "\n")
    print("chat", len(rows), "rows,", sum("error" in r for r in rows), "of them errors")


def main():
    torch.manual_seed(0)
    numpy.random.seed(0)
    torch.set_num_threads(1)
    parts = sys.argv[1:2] or ["models", "hidden", "tokenizers", "chat"]
    names = sys.argv[2:]
    if "models" in parts:
        for case in CASES:
            if not names or case[0] in names:
                make_case(*case)
    if "hidden" in parts:
        make_hidden_states()
    if "tokenizers" in parts:
        make_tokenizers()
    if "chat" in parts:
        make_chat()


if __name__ == "__main__":
    main()
