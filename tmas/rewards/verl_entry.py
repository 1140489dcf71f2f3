"""The reward function that verl calls: ``reward.custom_reward_function.path=pkg://tmas.rewards.verl_entry``."""

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
    """Return the reward of one response and its parts, always with the same keys and types (see docs/rewards.md).

    verl calls this in a reward worker as soon as the response is complete. ``settings``: see
    :class:`~tmas.rewards.settings.RewardSettings`. ``reward_router_address``: address of the judge that verl hosts, if
    any. Raises only for wrong settings. The calls of one event loop share workers and connections.
    """
    scorer = _scorer(settings, reward_router_address)
    return await scorer.score(data_source, solution_str, ground_truth, extra_info)


async def close() -> None:
    """Close the workers and connections of this event loop. verl's workers need not call it."""
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
