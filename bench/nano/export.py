"""Write the family: `python export.py` fills session/src/embedded/ from run/*.pt.

Three Hugging Face directories in bf16 and the held-out problems. Every model is
read back by transformers and its float32 logits are compared with ours.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
)

import problems
import tokenizer as tok
from model import NORM_EPS, ROPE_THETA, Decoder, Shape

EMBEDDED = Path(__file__).parents[2] / "session" / "src" / "embedded"
POSITIONS = 512


def common(shape: Shape) -> dict:
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": POSITIONS,
        "rope_theta": ROPE_THETA,
        "rms_norm_eps": NORM_EPS,
        "bos_token_id": tok.BOS_ID,
        "eos_token_id": tok.EOS_ID,
        "pad_token_id": tok.PAD_ID,
        "tie_word_embeddings": True,
    }


def as_transformers(ours: Decoder):
    shape = ours.shape
    if shape.labels:
        config = Qwen2Config(
            **common(shape),
            num_labels=2,
            id2label={0: "wrong", 1: "right"},
            label2id={"wrong": 0, "right": 1},
            use_sliding_window=False,
            classifier_dropout=0.0,
        )
        theirs = Qwen2ForTokenClassification(config)
    else:
        theirs = LlamaForCausalLM(LlamaConfig(**common(shape)))
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return theirs


def write_tokenizer(to: Path) -> None:
    tok.load().save(str(to / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tok.BOS,
        "eos_token": tok.EOS,
        "pad_token": tok.PAD,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
        "chat_template": tok.CHAT_TEMPLATE,
    }
    (to / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def check(ours: Decoder, to: Path) -> None:
    """transformers, from the files alone, agrees with the sampler's model."""
    kind = Qwen2ForTokenClassification if ours.shape.labels else LlamaForCausalLM
    theirs = kind.from_pretrained(to, dtype=torch.float32).eval()
    # Not AutoTokenizer: transformers 5 puts Qwen2's own pre-tokenizer in place of the file's.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(to)
    problem = problems.make_problem(random.Random(5), 7, "validation")
    turns = [{"role": "system", "content": "ignored"}, {"role": "user", "content": problem.text}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == tok.prompt_ids(tok.load(), problem.text), (text, ids)
    again = turns + [{"role": "assistant", "content": problem.solution}]
    assert tokenizer.apply_chat_template(again, tokenize=False) == text + problem.solution
    ids = torch.tensor([ids + tok.marked_ids(tok.load(), problem.pieces)])
    with torch.inference_mode():
        rounded = Decoder(ours.shape)
        rounded.load_state_dict({k: v.bfloat16().float() for k, v in ours.state_dict().items()})
        apart = (rounded(ids) - theirs(ids).logits).abs().max().item()
    assert apart < 1e-3, apart
    print(f"{to.name}: {ours.parameter_count()} parameters, {apart:.1e} from transformers")


def export(source: str, name: str) -> None:
    state = torch.load(tok.RUN / source)
    ours = Decoder(Shape(**state["shape"]))
    ours.load_state_dict(state["model"])
    to = EMBEDDED / name
    to.mkdir(parents=True, exist_ok=True)
    theirs = as_transformers(ours).to(torch.bfloat16)
    theirs.save_pretrained(to)
    (to / "model.safetensors").chmod(0o644)
    # transformers 5 writes new names only; engines and transformers 4 read the old ones.
    config = json.loads((to / "config.json").read_text())
    config |= {"rope_theta": ROPE_THETA, "torch_dtype": "bfloat16"}
    (to / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    ends = {"bos_token_id": tok.BOS_ID, "eos_token_id": tok.EOS_ID, "pad_token_id": tok.PAD_ID}
    GenerationConfig(**ends).save_pretrained(to)
    write_tokenizer(to)
    check(ours, to)


def write_heldout() -> None:
    with (EMBEDDED / "nano-heldout.jsonl").open("w") as file:
        for n, p in enumerate(problems.problem_set("heldout", 40, seed=0)):
            row = {
                "problem": p.text,
                "solution": p.solution,
                "answer": str(p.answer),
                "subject": p.subject,
                "level": p.level,
                "unique_id": f"heldout/{p.subject.lower()}/{n}.json",
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--small", default="small-final.pt")
    args.add_argument("--big", default="big-final.pt")
    args.add_argument("--prm", default="prm.pt")
    args = args.parse_args()
    EMBEDDED.mkdir(parents=True, exist_ok=True)
    write_heldout()
    for name in ("small", "big", "prm"):
        export(getattr(args, name), f"nano-{name}")
    size = sum(f.stat().st_size for f in EMBEDDED.rglob("nano*") if f.is_file())
    size += sum(f.stat().st_size for f in EMBEDDED.glob("nano-*/*"))
    assert size <= 12_000_000, size
    print(f"{size / 1e6:.2f} MB in all")
