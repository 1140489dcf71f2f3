"""The protocol of a chat model, and the routing hint of a call. :mod:`tmas.llm.client` has the client for servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tmas.llm.connection import ProgressCallback
from tmas.records import Failure, Reply, Request


@dataclass(frozen=True)
class RoutingHint:
    """Tells the router and the server where and when a call is best served. It does not change the reply.

    ``problem``: calls of the same problem share prompt prefixes, so they go to the same engine if possible.
    ``priority``: calls with a smaller number go first.
    """

    problem: str = ""
    priority: int = 0


NO_HINT = RoutingHint()


class ChatModel(Protocol):
    """Answers chat requests. A failure that it returns has no call key; the caller sets it."""

    async def complete(
        self, request: Request, on_progress: ProgressCallback | None = None, hint: RoutingHint = NO_HINT
    ) -> Reply | Failure: ...
