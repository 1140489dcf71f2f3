"""The messages that the run's own process and its Ray workers exchange every second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tmas.run.activity import Activity
from tmas.run.control import BudgetUse
from tmas.run.share_messages import ShareQuestion
from tmas.run.shares import Grant
from tmas.settings import Limits


@dataclass(frozen=True)
class HeartbeatRequest:
    """What the run sends to a worker with each heartbeat.

    ``slots``: completions that the worker may have in flight. ``base_urls``: the run's own servers. ``is_paused``:
    start no new call. ``limits``: the budgets in force; None means those of the settings. ``server_key``: the key of
    the run's own servers. ``environment``: the environment variables that contain the API keys. A worker uses both when
    it starts. ``grants``: answers to the worker's questions about shares of the budget.
    """

    slots: int
    base_urls: tuple[str, ...]
    is_paused: bool = False
    limits: Limits | None = None
    server_key: str = field(default="", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    grants: Mapping[int, Grant] = field(default_factory=dict)


@dataclass(frozen=True)
class HeartbeatReply:
    """A worker's answer to a heartbeat.

    ``process_id``: random, and new for each process of the actor. ``in_use``: completions in flight. ``demand``:
    completions that are in flight or wait for a slot. ``limits``: the budgets in force; None while the worker starts.
    ``limits_error``: why the worker could not change the budgets; None if no change has failed since the last reply.
    ``budget``: what counts against the budget of the run. ``is_paused``: whether the worker is paused. ``questions``:
    its questions about shares of the budget that have no answer yet.
    """

    process_id: str = ""
    in_use: int = 0
    demand: int = 0
    activity: Activity = field(default_factory=Activity)
    limits: Limits | None = None
    budget: BudgetUse = field(default_factory=BudgetUse)
    is_paused: bool = False
    questions: tuple[ShareQuestion, ...] = ()
    limits_error: str | None = None
