"""Composes settings for tests as Hydra does, but reads and merges the same files only once in a session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tmas.cli.main import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


def composed(name: str, *overrides: str) -> DictConfig:
    """The configuration ``conf/NAME.yaml`` with ``overrides``, equal to what :func:`hydra.compose` returns.

    Hydra first merges the files that the overrides choose, which takes most of the time, and then sets the values that
    the other overrides give. Here it does the first part once for each choice of files, and the second in a copy.
    """
    is_group = _is_group(name)
    parsed = OverridesParser.create().parse_overrides([*overrides])
    values = [given for given in parsed if isinstance(given.value(), dict) or not is_group(given.key_or_group)]
    choices = [str(given.input_line) for given in parsed if given not in values]
    config = deepcopy(_composed_files(name, *choices))
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


def resolved_training(*overrides: str) -> DictConfig:
    """The configuration of ``tmas train`` without interpolations."""
    config = composed("train", *overrides)
    OmegaConf.set_struct(config, False)
    config.trainer.experiment_name = "test"  # Hydra's run-time value is not there outside of a run
    OmegaConf.resolve(config)
    return config


@functools.cache
def _composed_files(name: str, *choices: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=[*choices])


@functools.cache
def _is_group(name: str) -> Callable[[str], bool]:
    """Hydra's own function that says whether a key is a group of files, in conf/ or in the package of verl."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        _, repository = loader._parse_overrides_and_create_caching_repo(name, [])
    return repository.group_exists
