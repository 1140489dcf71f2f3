"""From settings to the models that the roles call: starts a server where asked to, asks servers what is not set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from tmas.config import ROLES, ModelSettings, RunSettings
from tmas.inference.client import OpenAIChat
from tmas.inference.session import Activity, RoleModel
from tmas.inference.tokens import ContextWindow, token_counter
from tmas.inference.vllm_server import vllm_server


@asynccontextmanager
async def open_roles(settings: RunSettings, directory: Path, activity: Activity) -> AsyncIterator[dict[str, RoleModel]]:
    """A model for each role; roles with the same endpoint share one client. With ``serving=vllm`` the server runs as
    long as the block, and its log is ``vllm.log`` in ``directory``."""
    model = settings.model
    async with AsyncExitStack() as stack:
        if settings.serving.name == "vllm":
            activity.status = f"starting vLLM with {model.name}"
            url = await stack.enter_async_context(vllm_server(model, settings.serving, directory / "vllm.log"))
            model = model.model_copy(update={"base_url": url})
        activity.status = ""
        clients: dict[object, OpenAIChat] = {}
        roles = {}
        for role in ROLES:
            own = model.for_role(role)
            if own.endpoint() not in clients:
                clients[own.endpoint()] = await stack.enter_async_context(OpenAIChat(own.endpoint()))
            roles[role] = await _role_model(own, clients[own.endpoint()])
        yield roles


async def _role_model(model: ModelSettings, chat: OpenAIChat) -> RoleModel:
    length = model.context_length or await chat.context_length(model.name)
    if length is None:
        raise ValueError(f"model.context_length: the server does not tell it for {model.name}; set it, in tokens")
    tokenizer = model.tokenizer
    if tokenizer == "auto":
        tokenizer = model.path or "estimate"
    window = ContextWindow(_counter(tokenizer), length, model.sampling.max_tokens)
    return RoleModel(chat, model.name, model.sampling, window, model.send_seed)


_counter = cache(token_counter)
