"""Counts tokens with the model's tokenizer and chat template, and computes how long a prompt may be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import orjson
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from tmas.errors import UserError

CHAT_TEMPLATE_TOKENS = 64
"""Tokens kept free for the server's chat template if the tokenizer has no template that can be rendered here."""
MERGED_TOKENS = 4
"""Tokens kept free because text at the borders of chat template and prompt may be split into other tokens."""
BYTES_PER_TOKEN = 2.5
"""Used by ``tokenizer=estimate``. It is low, so that estimates are high: mathematics in English has about 3."""
GENERATION_TAG = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""A tag of Hugging Face templates that marks the assistant's text. It outputs nothing."""

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
        loaded = Tokenizer.from_file(str(file if file.exists() else _from_hub(tokenizer, "tokenizer.json")))
    except Exception as error:  # the library raises no narrower one
        remedy = "Name another tokenizer, such as a model folder on this machine, or estimate, which counts by bytes."
        source = "" if file.exists() else " from the Hugging Face hub"
        what = f"{tokenizer} cannot be loaded{source} ({str(error).rstrip('.')})"
        raise UserError(what, where="model.tokenizer", remedy=remedy) from None
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def chat_template_tokens(tokenizer: str, variables: Mapping[str, Any] | None = None) -> int:
    """Maximum number of tokens that the tokenizer's chat template adds to a prompt, with or without a system message.

    ``variables``: further values for the template (``chat_template_kwargs``). The result is
    :data:`CHAT_TEMPLATE_TOKENS` if the tokenizer has no chat template, or one that cannot be rendered.
    """
    config = _template_config(tokenizer)
    if not config:
        return CHAT_TEMPLATE_TOKENS
    count = token_counter(tokenizer)
    chats = ([{"role": "user", "content": "x"}], [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}])
    added: list[int] = []
    for chat in chats:
        try:
            rendered = _render(config, chat, variables or {})
        except TemplateError:  # some templates allow no system message
            continue
        added.append(count(rendered) - count("\n\n".join("x" for _ in chat)))
    return max(added) + MERGED_TOKENS if added else CHAT_TEMPLATE_TOKENS


def _template_config(tokenizer: str) -> dict[str, Any]:
    """The template as ``chat_template``, with the special tokens that it may use; empty if there is no template."""
    files = dict(_tokenizer_files(tokenizer))
    config: dict[str, Any] = orjson.loads(files.get("tokenizer_config.json", "{}"))
    template = files.get("chat_template.jinja") or config.get("chat_template")
    if isinstance(template, list):  # several templates by name
        template = next((named["template"] for named in template if named["name"] == "default"), None)
    if not template:
        return {}
    special = {key: value for key, value in config.items() if key.endswith("_token") and value}
    tokens = {key: value["content"] if isinstance(value, dict) else value for key, value in special.items()}
    return {**tokens, "chat_template": template}


def _tokenizer_files(tokenizer: str) -> Iterator[tuple[str, str]]:
    """The files that may hold a chat template, by name; those that are missing are left out."""
    path = Path(tokenizer)
    folder = path if path.is_dir() else path.parent
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        if tokenizer == "estimate":
            return
        if not path.exists():
            try:
                yield name, _from_hub(tokenizer, name).read_text("utf-8")
            except Exception:  # the repository has no such file, or the hub cannot be reached
                continue
        elif (folder / name).is_file():
            yield name, (folder / name).read_text("utf-8")


def _from_hub(repository: str, name: str) -> Path:
    """A file of a repository on the Hugging Face hub. A copy in the local cache is used as it is.

    Raises the library's error, which has no common type, if the hub does not answer at the first attempt. The library's
    own download would try again for 25 seconds, for each file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached)
    get_hf_file_metadata(hf_hub_url(repository, name))
    return Path(hf_hub_download(repository, name))


def _render(config: Mapping[str, Any], chat: list[dict[str, str]], variables: Mapping[str, Any]) -> str:
    """The chat as a server renders it, up to where the reply begins. The template is data: it runs in a sandbox."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "01 January 2026"
    template = environment.from_string(GENERATION_TAG.sub("", config["chat_template"]))
    return template.render(messages=chat, add_generation_prompt=True, **{**config, **variables})


class ContextWindow:
    """The room that one role's model has for a prompt and its completion, in tokens.

    Without ``max_window``, ``max_tokens`` always stay free for the completion, and a prompt may fill the rest of
    ``context_length``. With it, prompt and completion share ``max_window`` tokens: a completion may use what its prompt
    leaves, up to ``max_tokens``, and a prompt leaves at least half of the window, or ``max_tokens`` if that is less.
    ``template``: tokens of the chat template. The attribute ``limit`` is the maximum number of tokens of a prompt.
    """

    def __init__(
        self,
        count: Count,
        context_length: int,
        max_tokens: int,
        max_window: int | None = None,
        template: int = CHAT_TEMPLATE_TOKENS,
    ) -> None:
        self.context_length = context_length
        self._count, self._max_tokens, self._shared = count, max_tokens, max_window is not None
        size = min(context_length, max_window or context_length)
        self._room = size - template
        self.limit = self._room - (min(max_tokens, size // 2) if self._shared else max_tokens)
        if self.limit <= 0:
            raise UserError(
                f"model.sampling.max_tokens={max_tokens} leaves no room for a prompt in "
                f"model.context_length={context_length} tokens"
                + (f" and model.max_window_tokens={max_window}" if max_window else ""),
                remedy=f"Give a smaller limit, such as model.sampling.max_tokens={max(1, size // 2)}."
                + (
                    ""
                    if max_window
                    else f" Or give model.max_window_tokens={context_length}:"
                    " a completion may then use whatever its prompt leaves."
                ),
            )

    def count(self, text: str) -> int:
        return self._count(text)

    def fits(self, prompt: str) -> bool:
        # A token has at least one byte, so most prompts need not be tokenised to know that they fit.
        return len(prompt.encode()) <= self.limit or self._count(prompt) <= self.limit

    def max_completion(self, prompt: str) -> int:
        """Maximum number of tokens that the completion of ``prompt`` may have."""
        if not self._shared or len(prompt.encode()) + self._max_tokens <= self._room:
            return self._max_tokens
        return max(1, min(self._max_tokens, self._room - self._count(prompt)))
