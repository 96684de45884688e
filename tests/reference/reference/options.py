"""The options of a search, as `settings.search` of a results line states them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


class Unusable(Exception):
    """A file or a run that cannot be replayed; the text is a sentence for the user."""


@dataclass(frozen=True)
class Options:
    """SEMANTICS.md, "Options". The names are those of the results file."""

    strategy: str
    n: int
    beam_width: int
    beam_mode: str
    lookahead: int
    stop_rule: str
    balance_temperature: float
    similarity_temperature: float
    aggregation: str
    max_steps: int
    max_step_tokens: int
    max_tokens: int
    max_retries: int
    delimiter: str
    answer_marker: str
    seed: int
    selection: str | None
    sampling: dict[str, float]
    confidence_bar: float | None = None
    confidence_warmup: int = 16

    @staticmethod
    def read(search: dict[str, Any]) -> Options:
        """The options in `search`. An option or a value that the reference does not know is refused by its
        name."""
        known = {field.name for field in fields(Options)}
        for name, value in search.items():
            if name in ONLY_AT and value != ONLY_AT[name]:
                raise Unusable(f"the reference has {name} {ONLY_AT[name]} only, not {value}")
            if name not in known | set(ONLY_AT) | WITHOUT_EFFECT:
                raise Unusable(
                    f"the reference does not know the option {name} (tests/reference/reference/options.py)"
                )
        # Files of earlier releases have no options that came later.
        absent = {"confidence_bar", "confidence_warmup"} - set(search)
        options = Options(**{name: search[name] for name in known - absent})
        for name, words in WORDS.items():
            if getattr(options, name) not in words:
                raise Unusable(
                    f"the reference has no {name} {getattr(options, name)}; it has {', '.join(words)}"
                )
        return options

    @property
    def kept(self) -> int:
        """N/M, the branches that survive a round."""
        return self.n // self.beam_width


WORDS = {
    "beam_mode": ("paper", "search-and-learn"),
    "stop_rule": ("none", "unbeatable", "beta", "bayes-factor"),
    "aggregation": ("min", "last", "mean", "product"),
}
"""Options with a word each; `strategy` has STRATEGIES, and selections are refused where they are counted.
"""

ONLY_AT = {
    "grader": "strict",
    "verify_every": 1,
    "early_rejection": 0,
    "chain_threshold": 0.0,
    "calibration": None,
}
"""Options with the one value that the reference has, at which they change nothing that it does."""

WITHOUT_EFFECT = {
    "confidence_window",
    # ets
    "kv_weight",
    "coverage_weight",
    "cluster_distance",
    # mur
    "momentum_rate",
    "scaling_rate",
    # budget-forcing, certaindex, first-finished
    "thinking_start",
    "thinking_end",
    "thinking_budget",
    "answer_prompt",
    "continuations",
    "continuation_text",
    "probe_interval",
    "probe_agreement",
    "probe_prompt",
    "wait_for",
    # the calibration's, auto's
    "confidence",
    "plan",
}
"""Options of what the record states, or of strategies that the reference has not."""
