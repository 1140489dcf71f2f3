"""The shape of a transformer, and what follows from it: parameters, FLOPs per token, bytes of the KV cache."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

BF16 = 2
"""Bytes of a number in bfloat16, the type of vLLM's weights and KV cache, and of the weights in training passes."""


def is_adapted(name: str, targets: str | Collection[str]) -> bool:
    """Whether the linear layer ``name`` gets a LoRA adapter. ``targets``: see :meth:`ModelShape.adapter_parameters`."""
    if isinstance(targets, str):
        return targets == "all-linear" or re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder of the Llama and Qwen families, with grouped-query attention and a gated MLP.

    ``intermediate``: width of the MLP, or of one expert. ``experts``: 0 for a dense model. ``tied``: the output layer
    shares the weights of the embedding.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    experts: int = 0
    experts_per_token: int = 0

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Read a Hugging Face configuration object. Layers are taken to be alike, all with experts or none."""
        text = config.get_text_config()
        experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 0
        width = getattr(text, "moe_intermediate_size", None) if experts else None
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            intermediate=width or text.intermediate_size,
            vocabulary=text.vocab_size,
            tied=text.tie_word_embeddings,
            experts=experts,
            experts_per_token=text.num_experts_per_tok if experts else 0,
        )

    @property
    def embedding(self) -> int:
        """Parameters of the embedding. The output layer has as many."""
        return self.vocabulary * self.hidden

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention: the projections of queries, keys, values and output."""
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)

    @property
    def mlp(self) -> int:
        """Parameters of a dense layer's MLP, or of one expert: gate, up and down projection."""
        return 3 * self.hidden * self.intermediate

    @property
    def layer(self) -> int:
        """Parameters of a layer. Those of norms and biases are left out."""
        return self.attention + (self.experts * (self.mlp + self.hidden) if self.experts else self.mlp)

    @property
    def parameters(self) -> int:
        """Parameters in total, P."""
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2)

    @property
    def expert_parameters(self) -> int:
        """Parameters of all experts; 0 for a dense model."""
        return self.layers * self.experts * self.mlp

    @property
    def active_parameters(self) -> int:
        """Parameters that a token is multiplied with, P_a: those of the layers and of the output layer.

        Of the experts, only those that the token is sent to count. The embedding is a look-up.
        """
        mlp = self.experts_per_token * self.mlp + self.experts * self.hidden if self.experts else self.mlp
        return self.layers * (self.attention + mlp) + self.embedding

    def adapter_parameters(self, rank: int, targets: str | Collection[str]) -> int:
        """Parameters of a LoRA adapter of this rank: rank x (inputs + outputs) for each linear layer that has one.

        ``targets``: ``all-linear``, a regular expression for whole names, or the last parts of names, as for PEFT.
        """
        queries, keys, hidden = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.hidden
        sizes = {
            "self_attn.q_proj": hidden + queries,
            "self_attn.k_proj": hidden + keys,
            "self_attn.v_proj": hidden + keys,
            "self_attn.o_proj": queries + hidden,
        }
        if not self.experts:  # transformers keeps all experts of a layer in one tensor, which is no linear layer
            sizes |= {f"mlp.{name}": hidden + self.intermediate for name in ("gate_proj", "up_proj", "down_proj")}
        named = {f"model.layers.{n}.{name}": size for n in range(self.layers) for name, size in sizes.items()}
        return rank * sum(size for name, size in named.items() if is_adapted(name, targets))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache per token: a key and a value per layer and KV head, in bf16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BF16

    def forward_flops(self, length: float) -> float:
        """FLOPs per token of a forward pass over a sequence of ``length`` tokens: 2 P_a + 2 L d S.

        A parameter costs a multiplication and an addition. In each of the L layers, a token's query of d = heads x
        head_dim numbers meets S / 2 keys and as many values on average (causal attention), with two FLOPs for each
        number: 4 d S / 2.
        """
        return 2 * self.active_parameters + 2 * self.layers * self.heads * self.head_dim * length

    def weights_read(self, sequences: float, ranks: int = 1) -> float:
        """Bytes of weights that a decoding step reads. The step generates one token for each of ``sequences``.

        Each of the data-parallel ``ranks`` reads a copy of its own, except for the experts, which exist once. An expert
        is read if one of the tokens is routed to it. With uniform routing, that happens with probability
        1 - (1 - k / E) ** sequences for k of E experts per token.
        """
        if not self.experts:
            return BF16 * ranks * self.active_parameters
        reached = self.experts * (1 - (1 - self.experts_per_token / self.experts) ** sequences)
        copied = self.layers * (self.attention + self.experts * self.hidden) + self.embedding
        return BF16 * (ranks * copied + self.layers * reached * self.mlp)


_QWEN3_4B = ModelShape(36, 2560, 32, 8, 128, 9728, 151_936, tied=True)
_QWEN3_30B_A3B = ModelShape(48, 2048, 32, 4, 128, 768, 151_936, tied=False, experts=128, experts_per_token=8)
KNOWN = {"Qwen3-4B-Thinking-2507": _QWEN3_4B, "Qwen3-30B-A3B-Thinking-2507": _QWEN3_30B_A3B}
"""Shapes of the paper's models, by the last part of their name: an estimate needs no download."""


def known_shape(path: str) -> ModelShape | None:
    """The shape of the model of that name, if it is one of the paper's."""
    return KNOWN.get(PurePath(path).name)
