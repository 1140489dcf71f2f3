"""What all sessions of a run share: the models of the roles, the limits, the budget and the live counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tmas.agents.packing import Prompt
from tmas.concurrency import PriorityLimiter
from tmas.llm.chat_model import ChatModel
from tmas.llm.tokens import ContextWindow
from tmas.prompts import BUILT_IN, Prompts
from tmas.records import Sampling
from tmas.records.prices import Price
from tmas.run.activity import Activity
from tmas.run.budget import TokenBudget
from tmas.run.shares import ShareKeeper
from tmas.settings import Limits


@dataclass(frozen=True)
class RoleModel:
    """The model of one role: a chat client, the model's name on its server, the sampling and the context window.

    ``send_seed``: send a seed with each request. ``unconstrained_first``: send the first attempt of each call without
    its output schema, because a schema can keep a model from thinking.
    """

    chat: ChatModel
    name: str
    sampling: Sampling
    window: ContextWindow
    send_seed: bool = True
    unconstrained_first: bool = False

    def sampling_for(self, prompt: Prompt) -> Sampling:
        """The sampling for ``prompt``. ``max_tokens`` is limited to what the prompt leaves of the context window."""
        limit = self.window.max_completion(prompt.content)
        same = limit == self.sampling.max_tokens
        return self.sampling if same else self.sampling.model_copy(update={"max_tokens": limit})


@dataclass
class RunState:
    """The state that all sessions of a run share.

    ``prices``: the price of each role's model, where it is known. ``shares``: None if the method does not divide the
    run's budget.
    """

    roles: Mapping[str, RoleModel]
    limiter: PriorityLimiter
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    budget: TokenBudget = field(default_factory=TokenBudget)
    activity: Activity = field(default_factory=Activity)
    prompts: Prompts = BUILT_IN
    prices: Mapping[str, Price] = field(default_factory=dict)
    shares: ShareKeeper | None = None
