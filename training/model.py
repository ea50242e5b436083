"""The Llama architecture in plain torch, small enough to train on two CPU cores.

Tensor names and layouts are those of Hugging Face's `LlamaForCausalLM` (without the leading `model.`), so
that exporting is renaming.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    """Shape of the network; sizes are counts of features, heads, layers or tokens."""

    vocab_size: int = 2048
    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    ff_size: int = 512
    context: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned gain per feature."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_table(config: Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each [context, head_size]."""
    powers = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), config.rope_theta**-powers)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [batch, heads, tokens, head_size] by position, halves paired as in Hugging Face's layout."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention in which several query heads share one key/value head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.heads * config.head_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, tokens, -1, self.head_size).transpose(1, 2)

        q = rotate(split(self.q_proj(x)), cos, sin)
        k = rotate(split(self.k_proj(x)), cos, sin)
        v = split(self.v_proj(x))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))
        return mixed

    def first_head(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Where the first head looks, as logits [batch, tokens, tokens]."""
        q = rotate(F.linear(x, self.q_proj.weight[: self.head_size]), cos, sin)
        k = rotate(F.linear(x, self.k_proj.weight[: self.head_size]), cos, sin)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return (q @ k.transpose(1, 2) / self.head_size**0.5).masked_fill(later, -torch.inf)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ff_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ff_size, bias=False)
        self.down_proj = nn.Linear(config.ff_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention, then the feed-forward network, each normalised first and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        mixed: Tensor = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = mixed + self.mlp(self.post_attention_layernorm(mixed))
        return out


class Pilot(nn.Module):
    """The network to its last norm: token ids [batch, tokens] in, features of each out."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # Residual branches start silent, so that early steps shape the embeddings first.
                silent = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.0 if silent else 0.02 if "embed" in name else 0.06)

    def forward(self, ids: Tensor) -> Tensor:
        features, _ = self.watch(ids, 0)
        return features

    def watch(self, ids: Tensor, layers: int) -> tuple[Tensor, list[Tensor]]:
        """Features, and where the first head of each of the first layers looks (`Attention.first_head`)."""
        tokens = ids.shape[1]
        x = self.embed_tokens(ids)
        cos, sin = self.cos[:tokens], self.sin[:tokens]
        looks = []
        for number, layer in enumerate(self.layers):
            if number < layers:
                looks.append(layer.self_attn.first_head(layer.input_layernorm(x), cos, sin))
            x = layer(x, cos, sin)
        features: Tensor = self.norm(x)
        return features, looks

    def logits(self, features: Tensor) -> Tensor:
        """Scores of every token of the vocabulary as the next one, [..., vocab_size]."""
        # The output projection is the embedding table: at this size it would be a tenth of all parameters.
        return F.linear(features, self.embed_tokens.weight)

    def parameter_count(self) -> int:
        """Number of learned parameters."""
        return sum(parameter.numel() for parameter in self.parameters())
