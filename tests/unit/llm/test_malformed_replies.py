"""Hundreds of malformed replies: no traceback, no key in any output or file, and bounded memory and time."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

KEY = "sk-very+secret/0123456789=="
LEAST_REPLIES, MOST_MIB = 150, 400
"""The largest replies have 16 MiB. The client may hold several of its 16 MiB pieces, but not what they unpack to."""
LIMIT = 1200
"""Seconds for all replies. They take about a minute on a busy machine."""


def test_malformed_replies_cannot_crash_or_bloat_a_run_nor_leak_its_key(tmp_path: Path):
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.malformed_replies", str(run)],
        env=os.environ | {"FUZZ_KEY": KEY},
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    printed = done.stdout.decode()
    assert done.stderr == b""
    counts = {name: int(count) for name, count in re.findall(r"^(replies|MiB) (\d+)$", printed, re.MULTILINE)}
    assert counts["replies"] >= LEAST_REPLIES
    assert counts["MiB"] < MOST_MIB
    assert "\x1b" not in printed
    files = [file.read_text() for file in run.rglob("*") if file.is_file()]
    encoded = base64.b64encode(KEY.encode()).decode()
    assert not [text[:100] for text in (printed, *files) for form in (KEY, KEY[:14], encoded) if form in text]
    assert (run / "predictions.jsonl").exists()
