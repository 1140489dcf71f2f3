"""What verl sees: ``reward.custom_reward_function.path=pkg://tmas.rewards.verl_entry``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, OmegaConf

from tmas.rewards.scorer import Scorer
from tmas.rewards.settings import reward_settings

_scorers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Scorer]] = WeakKeyDictionary()


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    settings: Mapping[str, Any] | DictConfig,
    reward_router_address: str | None = None,
    **_: object,
) -> dict[str, str | float]:
    """The reward of one response and its parts (docs/rewards.md lists the keys); always the same keys and types.

    verl calls it in a reward worker, as soon as the response is there. ``settings``: see
    :class:`~tmas.rewards.settings.RewardSettings`. ``reward_router_address``: of the judge that verl hosts, if it does.
    Raises only for settings that are wrong; workers and connections are shared by the calls of one event loop.
    """
    scorer = _scorer(settings, reward_router_address)
    return await scorer.score(data_source, solution_str, ground_truth, extra_info)


async def close() -> None:
    """Ends the workers and connections of this event loop; verl's workers never need to, since they end whole."""
    for scorer in _scorers.pop(asyncio.get_running_loop(), {}).values():
        await scorer.__aexit__()


def _scorer(settings: Mapping[str, Any] | DictConfig, router_address: str | None) -> Scorer:
    plain: Any = (
        OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
        if isinstance(settings, DictConfig)
        else settings
    )
    checked = reward_settings(plain, router_address)
    scorers = _scorers.setdefault(asyncio.get_running_loop(), {})
    return scorers.setdefault(checked.model_dump_json(), Scorer(checked))
