"""Cross entropy that computes the logits of a few tokens at a time, so that long chats with a large vocabulary fit."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from tmas.errors import UserError
from tmas.training.sft.rows import IGNORED

LOGIT_KEYS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Keys of a model's config that change the logits after the output layer (Gemma 2, Cohere, Granite, Falcon-H1, ...)."""


def use_chunked_loss(model: Any, chunk: int) -> None:
    """Make ``model(**batch)`` return only the loss, and compute the logits of at most ``chunk`` tokens at a time.

    The loss is that of transformers' causal models: the mean over the tokens with a label, or their sum divided by
    ``num_items_in_batch``. The backward pass computes the logits again. Tokens without a label have no logits.

    The model calls its output layer only once, and this layer divides the tokens into chunks and computes the loss.
    With a call for each chunk, ZeRO 3 could hang: all processes must take part when it gathers the weights of a layer
    for a call, but their chats can have different numbers of chunks.

    Raises ``UserError`` if the model changes its logits or adds a loss of its own, because the chunked loss lacks both.
    """
    config = model.config.get_text_config()
    changed = [key for key in LOGIT_KEYS if getattr(config, key, None) not in (None, 1.0)]
    if getattr(config, "output_router_logits", False):
        changed.append("output_router_logits")
    head = model.get_output_embeddings()
    if changed or not isinstance(head, nn.Linear):
        reason = f"sets {', '.join(changed)}" if changed else "has no linear output layer"
        raise UserError(
            f"the policy {reason}, which the loss in chunks does not support",
            where="loss_chunk",
            remedy="Set loss_chunk=null to compute all logits at once.",
        )
    head.forward = MethodType(_summed_loss(chunk), head)
    model.forward = MethodType(_forward, model)


def _forward(self: Any, *, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **inputs: Any) -> Any:
    hidden = self.base_model(**inputs).last_hidden_state
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # a token predicts the next one
    learned = targets != IGNORED
    total = self.get_output_embeddings()(hidden[learned], targets[learned])
    return CausalLMOutput(loss=total / (learned.sum() if num_items_in_batch is None else num_items_in_batch))


def _summed_loss(chunk: int) -> Any:
    """The output layer's new ``forward``: hidden states ``[tokens, width]``, targets ``[tokens]`` -> summed loss."""

    def forward(self: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
        def loss(hidden: Tensor, targets: Tensor) -> Tensor:
            logits = functional.linear(hidden, self.weight, self.bias)
            return functional.cross_entropy(logits.float(), targets, reduction="sum")

        # The checkpoint keeps no logits for the backward pass.
        chunks = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        return torch.stack([checkpoint(loss, *part, use_reentrant=False) for part in chunks]).sum()

    return forward
