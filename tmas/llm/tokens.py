"""How much prompt fits: the model's own tokenizer, and the room its context leaves beside the completion."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from tmas.errors import UserError

CHAT_TEMPLATE_TOKENS = 64
"""Kept free for what the server's chat template adds around a single message."""
BYTES_PER_TOKEN = 2.5
"""Of ``tokenizer=estimate``: low on purpose; mathematics in English has about 3."""

Count = Callable[[str], int]


def token_counter(tokenizer: str) -> Count:
    """Counts tokens with a model folder's or file's tokenizer, one from the hub, or by bytes (``estimate``).

    Raises ``UserError`` where there is none.
    """
    if tokenizer == "estimate":
        return lambda text: math.ceil(len(text.encode()) / BYTES_PER_TOKEN)
    path = Path(tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(
            f"{path} holds no tokenizer.json",
            where="model.tokenizer",
            remedy="Name another tokenizer, or estimate, which counts by bytes.",
        )
    try:
        loaded = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"{tokenizer} cannot be loaded ({error})", where="model.tokenizer") from None
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


class ContextWindow:
    """The prompt room of one role: ``context_length - max_tokens``, less the chat template's share. In tokens."""

    def __init__(self, count: Count, context_length: int, max_tokens: int) -> None:
        self.limit = context_length - max_tokens - CHAT_TEMPLATE_TOKENS
        if self.limit <= 0:
            room = f"a prompt in model.context_length={context_length} tokens"
            raise UserError(f"model.sampling.max_tokens={max_tokens} leaves no room for {room}")
        self._count = count

    def count(self, text: str) -> int:
        return self._count(text)

    def fits(self, prompt: str) -> bool:
        # A token is at least one byte: most prompts are known to fit without being tokenised.
        return len(prompt.encode()) <= self.limit or self._count(prompt) <= self.limit
