"""Counts tokens and computes how long a prompt may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from tmas.errors import UserError

CHAT_TEMPLATE_TOKENS = 64
"""Tokens reserved for the chat template around a single message."""
BYTES_PER_TOKEN = 2.5
"""Used by ``tokenizer=estimate``. English mathematics has about 3; the lower value is on the safe side."""

Count = Callable[[str], int]


def token_counter(tokenizer: str) -> Count:
    """Return a function that counts tokens.

    ``tokenizer``: a model folder, a tokenizer file, a name on the Hugging Face hub, or ``estimate`` (by bytes).
    Raises ``UserError`` if the tokenizer cannot be loaded.
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
    """The longest prompt of one role, in tokens: ``context_length - max_tokens - CHAT_TEMPLATE_TOKENS``."""

    def __init__(self, count: Count, context_length: int, max_tokens: int) -> None:
        self.limit = context_length - max_tokens - CHAT_TEMPLATE_TOKENS
        if self.limit <= 0:
            room = f"a prompt in model.context_length={context_length} tokens"
            raise UserError(f"model.sampling.max_tokens={max_tokens} leaves no room for {room}")
        self._count = count

    def count(self, text: str) -> int:
        return self._count(text)

    def fits(self, prompt: str) -> bool:
        # A token has at least one byte, so most prompts need not be tokenised to know that they fit.
        return len(prompt.encode()) <= self.limit or self._count(prompt) <= self.limit
