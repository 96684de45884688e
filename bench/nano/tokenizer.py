"""The family's byte-level BPE: one tokenizer.json for both policies and the PRM.

Digits stand alone, "\\n\\n" is one token, and a word or a sign is a pre-token
together with the spaces around it, so "Step 1: 47 * 5 = 235." is 12 tokens. `python tokenizer.py` trains it into run/tokenizer.json.
"""

import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import problems

RUN = Path(__file__).parent / "run"
BOS, EOS, PAD, MARK = "<|bos|>", "<|eos|>", "<|pad|>", "<extra_0>"
BOS_ID, EOS_ID, PAD_ID, MARK_ID = 0, 1, 2, 3
VOCAB = 480

# In order: a step's end, one digit, \boxed{, a word, a sign, one space.
PIECES = r"\n\n|[0-9]| ?\\[A-Za-z]+\{?| ?[A-Za-z]+ ?| ?[^\sA-Za-z0-9]+ ?|\s"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
)


def train(count: int = 20_000) -> Tokenizer:
    rng = random.Random("tokenizer")
    texts = []
    for n in range(count):
        problem = problems.make_problem(rng, 1 + n % problems.MAX_STEPS, "train")
        texts += [problem.text + "\n\n" + problem.solution]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=[AddedToken(t, special=True) for t in (BOS, EOS, PAD, MARK)],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def load() -> Tokenizer:
    return Tokenizer.from_file(str(RUN / "tokenizer.json"))


def prompt_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """What the chat template renders for one user turn."""
    return [BOS_ID, *tokenizer.encode(text + "\n\n").ids]


def solution_ids(tokenizer: Tokenizer, solution: str) -> list[int]:
    return [*tokenizer.encode(solution).ids, EOS_ID]


def marked_ids(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    """The PRM's view of a solution: every piece, stripped, then its marker."""
    encoded = tokenizer.encode_batch([piece.strip() for piece in pieces])
    return [token for piece in encoded for token in (*piece.ids, MARK_ID)]


if __name__ == "__main__":
    RUN.mkdir(exist_ok=True)
    tokenizer = train()
    ids = [tokenizer.token_to_id(t) for t in (BOS, EOS, PAD, MARK)]
    assert ids == [BOS_ID, EOS_ID, PAD_ID, MARK_ID], ids
    assert len(tokenizer.encode("\n\n").ids) == 1 and len(tokenizer.encode("407").ids) == 3
    problem = problems.make_problem(random.Random(1), 6, "train")
    text = problem.text + "\n\n" + problem.solution
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    tokenizer.save(str(RUN / "tokenizer.json"))
    print(tokenizer.get_vocab_size(), "tokens;", "a problem of 6 steps:")
    print(tokenizer.encode(text).tokens)
