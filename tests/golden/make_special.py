"""Makes tests/golden/data/tokenizers/special_tokens.json: what transformers makes of special tokens outside of
tokenizer.json. Run once, committed.

    python tests/golden/make_special.py

Every row changes the files of nano-small's tokenizer: "config" are fields of tokenizer_config.json
(null under "without" removes one), "files" are other files. README.md next to this file says what the
rows hold.
"""

import json
import shutil
import tempfile
from pathlib import Path

import transformers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
NANO = HERE / "../../session/src/embedded/nano-small"
OUT = HERE / "data/tokenizers/special_tokens.json"

TEXT = (
    "A <|im_start|> crew <|im_end|>  has [PAD] x <mask> y<img> z <|bos|>509<|eos|> tok  <TOK>  end."
    "[UNK][SEP][CLS][MASK]"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MESSAGES = [{"role": "user", "content": TEXT}]


def token(content, **flags):
    base = dict(lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
    return {"content": content, **base, **flags}


def listed(*ids, **flags):
    texts = ["<|im_start|>", "<|im_end|>"]
    return {"added_tokens_decoder": {str(i): token(t, **flags) for i, t in zip(ids, texts)}}


MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
BOTH = ["<|im_start|>", "<|im_end|>"]
chatml = {"chat_template": CHATML}

# Name, fields of tokenizer_config.json, other files, fields to remove.
ROWS = [
    ("unchanged", {}, {}, []),
    ("listed", {**listed(480, 481), **chatml}, {}, []),
    ("listed in the other order", {**listed(481, 480), **chatml}, {}, []),
    ("listed with ids far away", {**listed(500, 505), **chatml}, {}, []),
    ("listed, lstrip", {**listed(480, 481, lstrip=True), **chatml}, {}, []),
    ("listed, rstrip", {**listed(480, 481, rstrip=True), **chatml}, {}, []),
    ("listed, not special", {**listed(480, 481, special=False), **chatml}, {}, []),
    ("listed, normalized", listed(480, 481, normalized=True), {}, []),
    ("listed, single words", listed(480, 481, single_word=True), {}, []),
    ("listed with few fields", {"added_tokens_decoder": {"480": {"content": "<img>"}}}, {}, []),
    ("listed and empty", {"added_tokens_decoder": {}}, {MAP: {"pad_token": "[PAD]"}}, []),
    ("extra", {"extra_special_tokens": BOTH, **chatml}, {}, []),
    ("extra by name", {"extra_special_tokens": {"image_token": "<img>", "a": "<TOK>"},
                       "chat_template": "{{ image_token }}{{ a }}" + CHATML}, {}, []),
    ("extra twice, and known", {"extra_special_tokens": ["<img>", "<img>", "<|bos|>"]}, {}, []),
    ("additional", {"additional_special_tokens": BOTH, **chatml}, {}, []),
    ("additional and extra",
     {"additional_special_tokens": ["<img>"], "extra_special_tokens": ["<TOK>"]}, {}, []),
    ("additional and empty extra",
     {"additional_special_tokens": ["<img>"], "extra_special_tokens": []}, {}, []),
    ("roles of its own", {"image_token": "<img>", "mask_token": "<mask>",
                          "chat_template": "{{ image_token }}{{ mask_token }}" + CHATML}, {}, []),
    ("pad before extra", {"pad_token": "[PAD]", "extra_special_tokens": ["<|im_start|>"]}, {}, []),
    ("all roles unknown", {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]",
                           "mask_token": "[MASK]", "pad_token": "[PAD]"}, {}, []),
    ("roles that are words", {"mask_token": "c", "unk_token": "end"}, {}, []),
    ("a role with flags", {"mask_token": {"__type": "AddedToken", "content": "<mask>",
                                          "lstrip": True, "rstrip": True, "normalized": True,
                                          "single_word": False}}, {}, []),
    ("a word listed", {"added_tokens_decoder": {"300": token("crew")}}, {}, []),
    ("a listed token with spaces", {"added_tokens_decoder": {"480": token(" has ")}}, {}, []),
    ("other flags for a token of tokenizer.json",
     {"added_tokens_decoder": {"1": token("<|eos|>", lstrip=True, rstrip=True)}}, {}, []),
    ("an empty pad", {"pad_token": ""}, {}, []),
    ("a null eos", {"eos_token": None}, {}, []),
    ("added tokens file", {}, {ADDED: {"<|im_start|>": 480, "<|im_end|>": 481}}, []),
    ("added tokens file, some special", {"extra_special_tokens": ["<|im_start|>"]},
     {ADDED: {"<|im_end|>": 480, "<|im_start|>": 481}}, []),
    ("added tokens file beside listed ones", listed(480), {ADDED: {"<|im_end|>": 480}}, []),
    ("added tokens file with a word", {}, {ADDED: {"crew": 300, "<img>": 480}}, []),
    ("map over config", {}, {MAP: {"bos_token": "<|eos|>", "pad_token": "[PAD]"}}, []),
    ("map beside listed ones", listed(480, 481),
     {MAP: {"bos_token": "<|eos|>", "pad_token": "[PAD]"}}, []),
    ("map with flags", {}, {MAP: {"mask_token": token("<mask>", lstrip=True)}}, []),
    ("map with additional", {}, {MAP: {"additional_special_tokens": ["<img>", "<TOK>"]}}, []),
    ("map with extra", {"extra_special_tokens": ["<TOK>"]},
     {MAP: {"extra_special_tokens": ["<img>"]}}, []),
    ("map with additional beside extra", {"extra_special_tokens": ["<TOK>"]},
     {MAP: {"additional_special_tokens": ["<img>"]}}, []),
    ("map with a null", {}, {MAP: {"bos_token": None}}, []),
    ("map with a role of its own", {}, {MAP: {"image_token": "<img>"}}, []),
    ("map alone", {}, {MAP: {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}},
     ["bos_token", "eos_token", "pad_token"]),
    ("no roles", {}, {}, ["bos_token", "eos_token", "pad_token"]),
    ("an infinite length", {"model_max_length": float("inf")}, {}, []),
    ("a length of 1e30", {"model_max_length": int(1e30)}, {}, []),
    ("bos and eos asked for", {"add_bos_token": True, "add_eos_token": True}, {}, []),
    ("special tokens split", {"split_special_tokens": True}, {}, []),
    ("no class", {}, {}, ["tokenizer_class"]),
    ("Llama's class", {"tokenizer_class": "LlamaTokenizerFast"}, {}, []),
    ("templates by name", {"chat_template": {"default": "{{ bos_token }}one", "rag": "x"}}, {}, []),
    ("a list of templates", {"chat_template": [{"name": "default", "template": "two"}]}, {}, []),
]


def row(name, config, files, without):
    with tempfile.TemporaryDirectory() as folder:
        for file in NANO.iterdir():
            if file.suffix == ".json":
                shutil.copy(file, folder)
        path = Path(folder) / "tokenizer_config.json"
        fields = json.loads(path.read_text()) | config
        path.write_text(json.dumps({k: v for k, v in fields.items() if k not in without}))
        # Room for what is added.
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 512}))
        for file, content in files.items():
            (Path(folder) / file).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(TEXT)["input_ids"]
        chat = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
        return {
            "name": name,
            "config": config,
            "files": files,
            "without": without,
            "ids": ids,
            "decoded": tokenizer.decode(ids),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True),
            "chat": chat,
            "chat_ids": tokenizer(chat, add_special_tokens=False)["input_ids"],
        }


def main():
    rows = [row(*case) for case in ROWS]
    made = {"made_with": f"transformers {transformers.__version__}", "text": TEXT}
    lines = [json.dumps(r, ensure_ascii=False) for r in rows]
    body = ",\n".join(lines)
    OUT.write_text(json.dumps(made)[:-1] + ', "rows": [\n' + body + "\n]}\n")


if __name__ == "__main__":
    main()
