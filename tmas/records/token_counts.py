"""Decides whether a server's token counts are plausible. If they are not, the tokenizer counts the tokens instead.

A server may report anything. A negative count would defeat budgets, and a count of 2**64 cannot be written as JSON.
"""

from __future__ import annotations

from typing import Any

USAGE_MISSING, USAGE_IMPLAUSIBLE = "usage_missing", "usage_implausible"
"""Notes of a reply whose server reported no usage, and of one whose usage is implausible. In both cases the reply's
usage has no tokens."""
UNREPORTED = frozenset({USAGE_MISSING, USAGE_IMPLAUSIBLE})

MAX_PLAUSIBLE_TOKENS = 10**8
"""Largest plausible number of tokens where no narrower limit is known: more than the context of any model holds."""
COMPLETION_FACTOR, SPARE_TOKENS = 4, 4096
"""Reported completion tokens may exceed ``max_tokens`` by this factor, because some servers do not count hidden
reasoning against it. All counts may be larger by the spare tokens: chat templates and hidden instructions add tokens
to a prompt."""
LONGEST_TOKEN = 128
"""Number of characters in the longest token of a common vocabulary, which is a run of spaces."""


def is_plausible_usage(
    prompt_tokens: Any,
    cached_prompt_tokens: Any,
    completion_tokens: Any,
    n: int,
    max_tokens: int,
    prompt_bytes: int = MAX_PLAUSIBLE_TOKENS,
    prompt_characters: int = 0,
    completion_characters: int = 0,
) -> bool:
    """Whether the counts can be those of a reply with ``n`` completions of at most ``max_tokens`` tokens.

    ``prompt_bytes``: size of the request, because a token has at least one byte. The prompt may be counted once for
    each completion. ``prompt_characters`` and ``completion_characters``: length of the messages and of the completions.
    Cached tokens are part of the prompt.
    """
    return (
        type(prompt_tokens) is type(cached_prompt_tokens) is type(completion_tokens) is int
        and 0 <= cached_prompt_tokens <= prompt_tokens <= min(MAX_PLAUSIBLE_TOKENS, n * (prompt_bytes + SPARE_TOKENS))
        and prompt_characters <= LONGEST_TOKEN * prompt_tokens
        and 0 <= completion_tokens <= min(MAX_PLAUSIBLE_TOKENS, COMPLETION_FACTOR * n * max_tokens + SPARE_TOKENS)
        and completion_characters <= LONGEST_TOKEN * completion_tokens
    )


def plausible_tokens(recorded: Any) -> int:
    """A token count from disk; 0 if it cannot be true. Older versions recorded every count that a server reported."""
    return recorded if type(recorded) is int and 0 <= recorded <= MAX_PLAUSIBLE_TOKENS else 0
