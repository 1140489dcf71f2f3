"""The models that the roles call: one client for each endpoint, and the run's own vLLM servers."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Self

import orjson

from tmas.engines.vllm import free_port, vllm_server
from tmas.errors import UserError
from tmas.llm.client import OpenAIChat, RetryCallback
from tmas.llm.endpoint import EndpointDown
from tmas.llm.tokens import CHAT_TEMPLATE_TOKENS, ContextWindow, chat_template_tokens, token_counter
from tmas.run.activity import Activity
from tmas.run.state import RoleModel
from tmas.settings import ModelSettings, RunSettings

OnServersReady = Callable[[tuple[str, ...]], None]
"""Called with the base URLs of the run's own servers when they are ready, and after each change."""


class Clients:
    """The chat clients of a method's roles. Roles with the same endpoint share a client. An async context manager.

    ``key``: the API key of the run's own servers. ``counts_chat_template``: count the tokens of the models' chat
    templates; False for a run that an older version started. ``others``: settings of further runs whose models are
    opened, too. Raises ``UserError`` for a wrong API key, tokenizer or context length.
    """

    def __init__(
        self,
        settings: RunSettings,
        key: str | None = None,
        counts_chat_template: bool = True,
        others: Sequence[RunSettings] = (),
    ) -> None:
        self._counts_chat_template = counts_chat_template
        self._counted_templates: dict[tuple[str, bytes], int] = {}
        models = [model for run in (settings, *others) for model in run.role_models().values()]
        slots = settings.concurrency
        endpoints = dict.fromkeys(model.endpoint() for model in models)
        self._own_endpoints = [endpoint for endpoint in endpoints if not endpoint.base_urls]
        self._chats = {e: OpenAIChat(e, slots=slots, key=key if e in self._own_endpoints else None) for e in endpoints}
        for model in models:
            # Raise errors about tokenizers and lengths now. No error is possible for a length that is still unknown.
            self._window(model, model.context_length or sys.maxsize)
        self._stack = AsyncExitStack()
        self.reported: dict[str, int] = {}
        """Context lengths in tokens that servers reported, by the key of the setting that is null."""
        self._known_lengths: dict[tuple[OpenAIChat, str], int] = {}

    async def __aenter__(self) -> Self:
        for chat in self._chats.values():
            await self._stack.enter_async_context(chat)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def use_servers(self, base_urls: tuple[str, ...]) -> None:
        """Send the calls of the run's own models to these servers from now on."""
        for endpoint in self._own_endpoints:
            self._chats[endpoint].router.update(base_urls)

    def on_retry(self, callback: RetryCallback) -> None:
        """Report the retries of all endpoints to ``callback``."""
        for chat in self._chats.values():
            chat.on_retry = callback

    def resize(self, slots: int) -> None:
        """Allow ``slots`` completions in flight from now on, over all servers of an endpoint together."""
        for chat in self._chats.values():
            chat.router.slots = slots

    async def served_models(self, settings: RunSettings) -> dict[str, tuple[str, ...]]:
        """The names of the models that the server of each role lists; none for a server without such a list."""
        found: dict[str, tuple[str, ...]] = {}
        for role, model in settings.role_models().items():
            try:
                found[role] = tuple(await self._chats[model.endpoint()].models())
            except EndpointDown:
                found[role] = ()
        return found

    async def roles(self, settings: RunSettings) -> dict[str, RoleModel]:
        """The model of each role of ``settings``, whose endpoints must be open.

        Asks each server once for a context length that is not set. Raises ``UserError`` if it does not report it.
        """
        return {role: await self._role_model(role, model, settings) for role, model in settings.role_models().items()}

    async def _role_model(self, role: str, model: ModelSettings, settings: RunSettings) -> RoleModel:
        chat = self._chats[model.endpoint()]
        length = model.context_length or await self._reported_length(chat, model.name)
        if model.context_length is None:
            self.reported[f"model.{role}.context_length"] = length
        unconstrained_first = _is_unconstrained_first(settings, model)
        return RoleModel(
            chat, model.name, model.sampling, self._window(model, length), model.send_seed, unconstrained_first
        )

    async def _reported_length(self, chat: OpenAIChat, model_name: str) -> int:
        length = self._known_lengths.get((chat, model_name)) or await chat.context_length(model_name)
        if length is None:
            raise UserError(
                f"the server does not report the context length of {model_name}",
                where="model.context_length",
                remedy="Set it, in tokens.",
            )
        self._known_lengths[chat, model_name] = length
        return length

    def _window(self, model: ModelSettings, context_length: int) -> ContextWindow:
        tokenizer = model.tokenizer
        if tokenizer == "auto":
            tokenizer = _checked_path(model.path) if model.path else "estimate"
        template = self._template_tokens(tokenizer, model) if self._counts_chat_template else CHAT_TEMPLATE_TOKENS
        return ContextWindow(
            _counter(tokenizer), context_length, model.sampling.max_tokens, model.max_window_tokens, template
        )

    def _template_tokens(self, tokenizer: str, model: ModelSettings) -> int:
        """Tokens of the model's chat template. Counted once, because that reads the tokenizer's files."""
        variables = model.sampling.extra.get("chat_template_kwargs")
        key = (tokenizer, orjson.dumps(variables))
        if key not in self._counted_templates:
            counted = chat_template_tokens(tokenizer, variables if isinstance(variables, dict) else None)
            self._counted_templates[key] = counted
        return self._counted_templates[key]


@asynccontextmanager
async def own_servers(
    settings: RunSettings, key: str, directory: Path, activity: Activity, on_ready: OnServersReady
) -> AsyncIterator[None]:
    """Start the vLLM servers of ``serving=vllm`` and stop them after the block. Does nothing for other settings.

    ``key``: the API key that clients must send. ``directory``: the folder for the logs ``vllm*.log``. ``activity``
    shows that the servers are being started. ``on_ready``: called with the servers' base URLs, again after each change.
    """
    model, serving = settings.model, settings.serving
    async with AsyncExitStack() as stack:
        if serving.name == "vllm":
            activity.status = f"starting vLLM with {model.name}"
            if settings.serves_on_ray:
                from tmas.engines.replicas import replicas

                await stack.enter_async_context(
                    replicas(model.with_absolute_paths(), serving, key, directory, on_ready)
                )
            else:
                port = free_port(serving.host)
                await stack.enter_async_context(vllm_server(model, serving, port, directory / "vllm.log", key))
                on_ready((serving.base_url(port),))
            activity.status = ""
        yield


class SharedServers:
    """vLLM servers that several runs share, one run after the other. The first call of :meth:`base_urls` starts them.

    They serve the model of the first run with its serving settings, and all other runs must have the same. Runs on Ray
    must not share servers: those of the first run end with its connection to the cluster, and this is not checked.

    An async context manager that stops the servers at its end. ``directory``: the folder for their logs.
    """

    def __init__(self, directory: Path) -> None:
        self.key = secrets.token_urlsafe(32)
        self._directory = directory
        self._stack = AsyncExitStack()
        self._base_urls: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def base_urls(self, settings: RunSettings, activity: Activity) -> tuple[str, ...]:
        """The base URLs of the servers. Starts them if needed, and waits until they answer.

        ``activity`` shows that they are being started.
        """
        if not self._base_urls:
            servers = own_servers(settings, self.key, self._directory, activity, self._set_base_urls)
            await self._stack.enter_async_context(servers)
        return self._base_urls

    def _set_base_urls(self, base_urls: tuple[str, ...]) -> None:
        self._base_urls = base_urls


def _checked_path(path: str) -> str:
    """Return ``path``, a folder or a hub name. Raises ``UserError`` for a folder that does not exist."""
    is_hub_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith(".")
    if not is_hub_name and not Path(path).exists():
        raise UserError(
            f"there is no folder {path}",
            where="model.path",
            remedy="Give the folder of a model (with config.json), or a name on the Hugging Face hub (ORG/NAME).",
        )
    return path


def _is_unconstrained_first(settings: RunSettings, model: ModelSettings) -> bool:
    """Whether the first attempt of each call is sent to ``model`` without its schema.

    With ``structured_outputs=auto``, agents leave the schema out if the model of the candidates thinks between tags.
    That says nothing about other models, so these get the schema only after a first attempt without it. Models are
    compared by name alone, because their servers may change when the run is resumed.
    """
    agents = settings.method.agents
    return agents.structured_outputs == "auto" and model.name != settings.model.for_role("solution").name


_counter = cache(token_counter)
