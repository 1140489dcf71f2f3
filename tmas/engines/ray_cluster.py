"""The Ray cluster of a run: one that is there already, or one of the run's own on this machine."""

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
"""Ray's switch to bind 127.0.0.1 alone. It reads it when it is imported."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
CONNECT_TIMEOUT = 10.0
"""Seconds in which the head of a cluster must answer."""


class ClusterFailed(Exception):
    """The Ray cluster went away, or none of its workers lives long enough to work: the run stops and can be resumed."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address`` (``auto``: the one of this machine) while the block runs.

    None: start one on loopback, with all of this machine, and stop it afterwards; a connection that the process has
    already is used and left as it is.
    """
    for name, value in (QUIET if address else QUIET | LOOPBACK).items():
        os.environ.setdefault(name, value)
    if address not in (None, "auto"):
        _refuse_silence(address)
    import ray

    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    local = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **local)
        if threading.current_thread() is threading.main_thread():  # elsewhere Ray leaves signals alone, as one must
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in place of the run's
        yield
    except ConnectionError as error:
        raise UserError(f"there is no Ray cluster at {address} ({error})", where="ray.address") from None
    finally:
        ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Ray would try for minutes to reach what is not there."""
    found = re.fullmatch(r"\[?([^\]]+)\]?:(\d+)", address)
    if not found:
        raise UserError(f"{address} is neither HOST:PORT nor auto", where="ray.address")
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise UserError(f"there is no Ray cluster at {address} ({error})", where="ray.address") from None
