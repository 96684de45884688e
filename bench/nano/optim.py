"""Muon for the hidden matrices, AdamW for all else, behind one step().

At equal updates Muon learned this domain about twice as fast as AdamW alone.
`scale` multiplies both rates: warm-up, then constant, then the decay to zero.
"""

import torch
from torch import nn


class Optimizer:
    def __init__(self, model: nn.Module, muon_rate: float, adam_rate: float):
        hidden, rest = [], []
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            is_hidden = p.ndim == 2 and "embed_tokens" not in name and "score" not in name
            (hidden if is_hidden else rest).append(p)
        muon = torch.optim.Muon(hidden, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01)
        self.parts = [(muon, muon_rate), (adam, adam_rate)]
        self.parameters = [*hidden, *rest]

    def step(self, loss: torch.Tensor, scale: float) -> None:
        """One update against `loss` at `scale` times the peak rates, clipped to norm 1."""
        for part, peak in self.parts:
            part.zero_grad()
            for group in part.param_groups:
                group["lr"] = peak * scale
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, _ in self.parts:
            part.step()

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part, _ in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for (part, _), state in zip(self.parts, states):
            part.load_state_dict(state)
