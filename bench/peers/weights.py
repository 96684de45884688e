"""The same weights for both sides.

    weights.py convert DIR FILE      a Hugging Face directory as GGUF, bf16
    weights.py random SHAPE DIR      a Hugging Face directory with random bf16 weights (llama-3.2-1b)

Matrices keep their bf16 bits; vectors become f32, as llama.cpp keeps them. Q and K of Llama are put into
the order of its rotary embedding (pairs next to each other). A directory without tokenizer.json
becomes a file without vocabulary, which is enough for throughput.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

ARCHITECTURES = {
    "LlamaForCausalLM": (gguf.MODEL_ARCH.LLAMA, "llama", "llama-bpe"),
    "Qwen2ForCausalLM": (gguf.MODEL_ARCH.QWEN2, "qwen2", "qwen2"),
}

SHAPES = {
    # Published config of Llama-3.2-1B, without its rotary scaling: these weights have no meaning anyway.
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-05,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 128000,
        "eos_token_id": 128009,
    },
}


def convert(directory: Path, file: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    kind = config["architectures"][0]
    if kind not in ARCHITECTURES:
        sys.exit(f"{directory}: {kind} cannot be converted, expected one of {', '.join(ARCHITECTURES)}")
    arch, name, pre = ARCHITECTURES[kind]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    partial = file.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, name)
    writer.add_name(directory.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary(writer, directory, config, pre)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for key in tensors.keys():
                if key == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                tensor = tensors.get_tensor(key)
                if name == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
                    count = heads if "q_proj" in key else kv_heads
                    rows, cols = tensor.shape
                    halves = tensor.reshape(count, 2, rows // count // 2, cols)
                    tensor = halves.swapaxes(1, 2).reshape(rows, cols)
                stem, _, suffix = key.rpartition(".")
                new = names.get_name(stem)
                if new is None:
                    sys.exit(f"{shard}: tensor {key} has no place in a GGUF of {name}")
                new = f"{new}.{suffix}"
                if tensor.dim() == 1:
                    writer.add_tensor(new, tensor.float().numpy())
                else:
                    bits = tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
                    writer.add_tensor(new, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(file)


def vocabulary(writer: gguf.GGUFWriter, directory: Path, config: dict, pre: str) -> None:
    """The byte-level BPE of tokenizer.json."""
    path = directory / "tokenizer.json"
    if not path.exists():
        writer.add_tokenizer_model("no_vocab")
        return
    tokenizer = json.loads(path.read_text())
    size = config["vocab_size"]
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], special
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(pre.startswith("llama"))
    for field, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        value = config.get(field)
        if value is not None:
            add(value[0] if isinstance(value, list) else value)


def random(shape: str, directory: Path) -> None:
    if shape not in SHAPES:
        sys.exit(f"{shape}: expected one of {', '.join(SHAPES)}")
    config = SHAPES[shape]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, cols: int) -> torch.Tensor:
        return (torch.randn(rows, cols, generator=generator) * 0.02).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden)}
    ones = np.ones(hidden, dtype=np.float32)
    for layer in range(config["num_hidden_layers"]):
        stem = f"model.layers.{layer}"
        for part, rows, cols in (
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            tensors[f"{stem}.{part}.weight"] = matrix(rows, cols)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{stem}.{part}.weight"] = torch.from_numpy(ones.copy()).to(torch.bfloat16)
    tensors["model.norm.weight"] = torch.from_numpy(ones).to(torch.bfloat16)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["convert", directory, file]:
            convert(Path(directory), Path(file))
        case ["random", shape, directory]:
            random(shape, Path(directory))
        case _:
            sys.exit(__doc__)
