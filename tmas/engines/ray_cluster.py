"""Connects a run to a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tmas.errors import UserError

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch to bind only to 127.0.0.1. Ray reads it on import."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray's switches: no usage reports, and no change to the visible GPUs of actors that require none."""
CONNECT_TIMEOUT = 10.0
"""Seconds in which the head of a cluster must answer."""


class ClusterFailed(Exception):
    """The Ray cluster is gone, or its workers die before they can work. The run stops and can be resumed."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address`` (``auto``: the one on this machine) while the block runs.

    None starts a cluster on loopback with all resources of this machine, and stops it at the end. An existing
    connection of the process is used and kept.
    """
    for name, value in (QUIET if address else QUIET | LOOPBACK).items():
        os.environ.setdefault(name, value)
    if address not in (None, "auto"):
        _check_reachable(address)
    import ray

    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    local = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        try:
            ray.init(
                address or "local", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **local
            )
        except ConnectionError as error:
            raise UserError(f"there is no Ray cluster at {address} ({error})", where="ray.address") from None
        if threading.current_thread() is threading.main_thread():  # in other threads Ray does not touch signals
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced the run's handler
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Fail quickly if nothing listens at ``address``. Ray itself would retry for minutes."""
    found = re.fullmatch(r"\[?([^\]]+)\]?:(\d+)", address)
    if not found:
        raise UserError(f"{address} is neither HOST:PORT nor auto", where="ray.address")
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise UserError(f"there is no Ray cluster at {address} ({error})", where="ray.address") from None
