"""What all tests need of the process that runs them."""

from __future__ import annotations

import signal

# A shell has what it runs in the background ignore SIGINT, and so would the commands under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
