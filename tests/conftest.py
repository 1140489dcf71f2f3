"""What all tests need of the process that runs them."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import uvloop
import yaml
from xdist.scheduler import LoadFileScheduling

from tmas.cli.main import register_resolvers

# A shell has what it runs in the background ignore SIGINT, and so would the commands under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ENVIRON = os.environ


class FilesBesideEngines(LoadFileScheduling):
    """Files side by side, but real engines and trainers one at a time: each takes a machine."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "engines" if re.match(r"tests/e2e/test_(\w+_vllm|train|data_chain)\.py", file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return FilesBesideEngines(config, log)


@pytest.fixture(autouse=True, scope="session")
def parsed_once() -> Iterator[None]:
    """OmegaConf parses each text once: hundreds of tests compose verl's configuration, which has 28 files."""
    load, parsed = yaml.load, dict[str, Any]()

    def cached(stream: Any, Loader: Any) -> Any:
        if Loader.__name__ != "OmegaConfLoader" or isinstance(stream, bytes):
            return load(stream, Loader)
        text = stream if isinstance(stream, str) else stream.read()
        if text not in parsed:
            parsed[text] = load(text, Loader)
        return copy.deepcopy(parsed[text])

    with mock.patch("omegaconf.omegaconf.yaml.load", cached):
        yield


@pytest.fixture(autouse=True, scope="session")
def resolvers() -> None:
    """Tests that compose conf/ themselves need the functions that its files call."""
    register_resolvers()


@pytest.fixture(autouse=True)
def environment() -> None:
    """Give each test the original ``os.environ``: ``datasets`` replaces it by a copy, which Rich does not read."""
    os.environ = ENVIRON  # noqa: B003 - it is the same object again


def pytest_asyncio_loop_factories(config: pytest.Config) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests have the event loop that the commands have."""
    return {"uvloop": uvloop.new_event_loop}
