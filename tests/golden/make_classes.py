"""Makes tests/golden/data/tokenizers/classes.json: which tokenizer class transformers takes for a
tokenizer.json, and whether its ids are those of the file. Run once, committed.

    python tests/golden/make_classes.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer

DATA = Path(__file__).parent / "data/tokenizers"
# With a combining accent, which NFC joins to its letter.
TEXT = "Hello world 12345, don't  x=3\n\n½ ﬁ cafe\u0301"
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "MistralForCausalLM": "mistral",
}
CLASSES = [None, "PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2TokenizerFast", "GemmaTokenizer"]


def row(kind, architecture, named):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(DATA / kind / "tokenizer.json", folder)
        config = {"model_type": ARCHITECTURES[architecture], "architectures": [architecture]}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named} if named else {}))
        ours = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
        tokenizer = AutoTokenizer.from_pretrained(folder)
        try:
            same = tokenizer(TEXT, add_special_tokens=False)["input_ids"] == ours
        except Exception:  # A token that the class needs and the vocabulary lacks.
            same = False
    taken = type(tokenizer).__name__
    return {"file": kind, "architecture": architecture, "named": named, "taken": taken, "same_ids": same}


rows = [row(k, a, n) for k in ("bpe", "byte-fallback") for a in ARCHITECTURES for n in CLASSES]
made = {"transformers": transformers.__version__, "text": TEXT, "rows": rows}
lines = ",\n".join("  " + json.dumps(r) for r in rows)
head = json.dumps({k: v for k, v in made.items() if k != "rows"}, ensure_ascii=False)
(DATA / "classes.json").write_text(head[:-1] + ', "rows": [\n' + lines + "\n]}\n")
