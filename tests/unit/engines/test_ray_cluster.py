"""engines/ray_cluster.py: what a failed connection to Ray is, and what is not one; with a stand-in for Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tmas.engines.ray_cluster import QUIET, ray_cluster
from tmas.errors import UserError


class StandIn(SimpleNamespace):
    """Ray, as far as ``ray_cluster`` uses it. ``refuses``: no cluster answers. ``shutdowns``: calls of ``shutdown``."""

    def __init__(self, refuses: bool = False) -> None:
        super().__init__(refuses=refuses, shutdowns=0)

    def is_initialized(self) -> bool:
        return False

    def init(self, *_: Any, **__: Any) -> None:
        if self.refuses:
            raise ConnectionError("nobody answers")

    def shutdown(self) -> None:
        self.shutdowns += 1


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ray_cluster`` sets these variables if they are not set."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def test_a_cluster_that_does_not_answer_is_a_user_error(monkeypatch: pytest.MonkeyPatch):
    ray = StandIn(refuses=True)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(UserError, match=r"there is no Ray cluster at auto \(nobody answers\)"), ray_cluster("auto"):
        pytest.fail("it is connected")
    assert ray.shutdowns == 1


def test_a_connection_error_in_the_block_is_not_one_of_ray(monkeypatch: pytest.MonkeyPatch):
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ConnectionResetError, match="a model server"), ray_cluster("auto"):
        raise ConnectionResetError("a model server")
    assert ray.shutdowns == 1
