"""One vLLM server for every end-to-end test that needs a real model, but not a server of its own.

A start of vLLM costs about 40 seconds of CPU, more than most of these tests. Where the start itself is under test, a
slow test starts its own: test_demo_vllm.py (on this machine) and test_train.py (on Ray).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.support.waiting import wait_until
from tmas.testing.processes import writing_to


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Engines and trainers compute with one thread each.

    By default vLLM binds a thread to each core. Other tests use the cores, too, and with so small a model the threads
    would mostly wait for each other.
    """
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", VLLM_CPU_OMP_THREADS_BIND="nobind"):
        yield


@pytest.fixture(scope="session")
def policy_server(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a vLLM server as ``tmas demo`` starts it; the policy is called tests.support.policy_server.NAME.

    It starts with the first test that asks for it and runs until the session ends. All tests that use it run in one
    xdist worker, the one for engines (tests/conftest.py), so a session has one.

    Another process starts the server, as a run does. At the end of the session that process is killed: a run that is
    killed must leave no server behind.
    """
    log = tmp_path_factory.mktemp("policy_server") / "vllm.log"
    command = [sys.executable, "-m", "tests.support.policy_server", str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        base_url = holder.stdout.readline().strip()
        assert base_url, "vLLM did not start: see the error above"
        assert writing_to(log)
        yield base_url
        holder.kill()
    wait_until(lambda: not writing_to(log))
