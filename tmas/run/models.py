"""From settings to the models that the roles call: a client for each endpoint, and servers of the run's own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Self

from tmas.engines.vllm import free_port, vllm_server
from tmas.errors import UserError
from tmas.llm.client import OpenAIChat
from tmas.llm.tokens import CHAT_TEMPLATE_TOKENS, ContextWindow, chat_template_tokens, token_counter
from tmas.run.session import Activity, RoleModel
from tmas.settings import ModelSettings, RunSettings

Tell = Callable[[tuple[str, ...]], None]
"""Hears the base URLs of the run's own servers that are ready."""


class Clients:
    """The clients of a method's roles; those with the same endpoint share one.

    An async context manager. ``key``: of the run's own servers. ``counts_template``: count the tokens of the models'
    chat templates; false for a run that an older version began. Raises ``ValueError`` for what is wrong with a key, a
    tokenizer or a context length.
    """

    def __init__(self, settings: RunSettings, key: str | None = None, counts_template: bool = True) -> None:
        self._settings = settings
        self._counts_template = counts_template
        self._models = settings.role_models()
        slots = settings.concurrency
        endpoints = dict.fromkeys(model.endpoint() for model in self._models.values())
        self._own = [endpoint for endpoint in endpoints if not endpoint.base_urls]
        self._chats = {e: OpenAIChat(e, slots=slots, key=key if e in self._own else None) for e in endpoints}
        for model in self._models.values():
            self._window(
                model, model.context_length or sys.maxsize
            )  # a length that is not known yet may be long enough
        self._stack = AsyncExitStack()
        self.reported: dict[str, int] = {}
        """Context lengths in tokens that servers told, by the key of the setting that is null."""

    async def __aenter__(self) -> Self:
        for chat in self._chats.values():
            await self._stack.enter_async_context(chat)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def tell(self, base_urls: tuple[str, ...]) -> None:
        """These are the run's own servers from now on."""
        for endpoint in self._own:
            self._chats[endpoint].router.update(base_urls)

    def resize(self, slots: int) -> None:
        """So many completions may be in flight from now on, at each endpoint's engines together."""
        for chat in self._chats.values():
            chat.router.slots = slots

    async def roles(self) -> dict[str, RoleModel]:
        """A model for each role; asks servers for the context lengths that are not set."""
        return {role: await self._role_model(role, model) for role, model in self._models.items()}

    async def _role_model(self, role: str, model: ModelSettings) -> RoleModel:
        chat = self._chats[model.endpoint()]
        length = model.context_length or await chat.context_length(model.name)
        if length is None:
            raise UserError(
                f"the server does not report it for {model.name}",
                where="model.context_length",
                remedy="Set it, in tokens.",
            )
        if model.context_length is None:
            self.reported[f"model.{role}.context_length"] = length
        free_first = _is_free_first(self._settings, model)
        return RoleModel(chat, model.name, model.sampling, self._window(model, length), model.send_seed, free_first)

    def _window(self, model: ModelSettings, context_length: int) -> ContextWindow:
        tokenizer = model.tokenizer
        if tokenizer == "auto":
            tokenizer = model.path or "estimate"
        template = CHAT_TEMPLATE_TOKENS
        if self._counts_template:
            variables = model.sampling.extra.get("chat_template_kwargs")
            template = chat_template_tokens(tokenizer, variables if isinstance(variables, dict) else None)
        return ContextWindow(
            _counter(tokenizer), context_length, model.sampling.max_tokens, model.max_window_tokens, template
        )


@asynccontextmanager
async def own_servers(
    settings: RunSettings, key: str, directory: Path, activity: Activity, tell: Tell
) -> AsyncIterator[None]:
    """What ``serving=vllm`` asks for, as long as the block runs; logs are in ``directory``, called ``vllm*.log``.

    Each server takes calls from those who have ``key`` alone.
    """
    model, serving = settings.model, settings.serving
    async with AsyncExitStack() as stack:
        if serving.name == "vllm":
            activity.status = f"starting vLLM with {model.name}"
            if settings.serves_on_ray:
                from tmas.engines.replicas import replicas

                await stack.enter_async_context(replicas(model.absolute(), serving, key, directory, tell))
            else:
                port = free_port(serving.host)
                await stack.enter_async_context(vllm_server(model, serving, port, directory / "vllm.log", key))
                tell((serving.base_url(port),))
            activity.status = ""
        yield


class SharedServers:
    """The own servers of several runs with the same model: started for the first run that has a problem left to solve.

    An async context manager; the servers stop with it. Their logs are in ``directory``.
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
        """Waits until the servers answer. ``activity`` shows that they are being started."""
        if not self._base_urls:
            servers = own_servers(settings, self.key, self._directory, activity, self._hear)
            await self._stack.enter_async_context(servers)
        return self._base_urls

    def _hear(self, base_urls: tuple[str, ...]) -> None:
        self._base_urls = base_urls


def _is_free_first(settings: RunSettings, model: ModelSettings) -> bool:
    """``structured_outputs=auto`` goes by how the candidates think, which tells nothing of another model than theirs.

    Models are told apart by name alone: where they are served may change when the run is resumed.
    """
    agents = settings.method.agents
    return agents.structured_outputs == "auto" and model.name != settings.model.for_role("solution").name


_counter = cache(token_counter)
