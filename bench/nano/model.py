"""A small decoder in plain PyTorch, equal to transformers' Llama and Qwen2.

Parameter names are transformers' own, so `state_dict()` is what export.py
writes; export.py also checks the logits against transformers. One class serves
both: `bias` adds Qwen2's QKV biases, `labels` replaces the tied LM head by the
PRM's two-class head.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_THETA = 10_000.0
NORM_EPS = 1e-5


@dataclass
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inter: int
    head_dim: int = 32
    vocab: int = 480
    bias: bool = False
    labels: int = 0

    def dict(self) -> dict:
        return asdict(self)


def rope_tables(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each [*positions, head_dim], the halves repeated as in Llama."""
    freq = ROPE_THETA ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = positions[..., None].float() * freq
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Norm(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)


class Attention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=s.bias)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=s.bias)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=s.bias)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache=None, mask=None) -> Tensor:
        """x [batch, new, hidden]; cache holds K and V [batch, kv_heads, room, head_dim]."""
        batch, new, _ = x.shape
        s = self.s
        q = self.q_proj(x).view(batch, new, s.heads, s.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, new, s.kv_heads, s.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, new, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            keys, values, start = cache
            keys[:, :, start : start + new] = k
            values[:, :, start : start + new] = v
            k, v = keys[:, :, : start + new], values[:, :, : start + new]
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(batch, new, -1))


class Mlp(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.inter, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.inter, bias=False)
        self.down_proj = nn.Linear(s.inter, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Mlp(s)
        self.input_layernorm = Norm(s.hidden)
        self.post_attention_layernorm = Norm(s.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache=None, mask=None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden)


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        if shape.labels:
            self.score = nn.Linear(shape.hidden, shape.labels)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5 if "embed" not in name else 0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        for layer in self.model.layers:
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
                nn.init.zeros_(out.weight)

    def hidden(self, ids: Tensor, frozen: int = 0) -> Tensor:
        """Final-norm states [batch, length, hidden] of right-padded ids.

        No gradient reaches the embedding and the first `frozen` layers, if any.
        """
        cos, sin = rope_tables(torch.arange(ids.shape[1]), self.shape.head_dim)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            x = self.model.embed_tokens(ids)
            for layer in self.model.layers[:frozen]:
                x = layer(x, cos, sin)
        for layer in self.model.layers[frozen:]:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.score(hidden) if self.shape.labels else hidden @ self.model.embed_tokens.weight.T

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
