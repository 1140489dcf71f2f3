"""The run directory, the project's output contract: who may write it, whether a run may go on in it, what it holds.

``config.yaml`` the composed settings · ``manifest.json`` what makes this run this run · ``trace/`` every call ·
``predictions.jsonl`` a line a finished problem · ``failures.jsonl`` a line a failure · ``metrics.json`` the totals.
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
import yaml

from tmas.inference.store import Trace, digest, trace_name
from tmas.prompts import prompt_hashes
from tmas.records import SCHEMA_VERSION, Problem

PACKAGES = ("tmas", "math-verify", "tokenizers", "vllm", "ray", "torch", "transformers", "verl")


class RunRefused(Exception):
    """This directory cannot take this run; the message says why and what to do."""


class RunDirectory:
    """Opens ``path`` for one writer: creates it, or goes on with the run that lies in it.

    ``identity``: the settings that the outcome depends on, flat (dotted key -> value). ``growing``: those of them that
    may be raised on resume (``method.max_iterations``). Raises :class:`RunRefused` where another run lies there, is
    still writing there, or a setting differs.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        problems: Sequence[Problem],
        growing: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        (path / "trace").mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path / ".lock")
        with ExitStack() as unless_refused:
            unless_refused.callback(self.close)
            manifest = _manifest(identity, problems)
            self.resumed = (path / "manifest.json").exists()
            if self.resumed:
                manifest = self._resumed_manifest(manifest, set(growing))
            elif any((path / "trace").iterdir()):
                raise RunRefused(f"{path} holds a trace but no manifest.json: it is no run directory of this project")
            _write(path / "manifest.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            if config is not None:
                _write(path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
            unless_refused.pop_all()

    def _resumed_manifest(self, new: dict[str, Any], growing: set[str]) -> dict[str, Any]:
        old = orjson.loads((self.path / "manifest.json").read_bytes())
        if old["schema_version"] != SCHEMA_VERSION:
            raise RunRefused(f"{self.path} was written in schema version {old['schema_version']}, not {SCHEMA_VERSION}")
        differing = [
            *_differences(old["settings"], new["settings"], growing),
            *(f"prompt {line}" for line in _differences(old["prompts"], new["prompts"], set())),
            *_changed_problems(old["problems"], new["problems"]),
        ]
        if differing:
            raise RunRefused(
                f"{self.path} holds a run with other settings; use another output_dir, or set these back:\n  "
                + "\n  ".join(differing)
            )
        return {**new, "problems": {**old["problems"], **new["problems"]}}

    def trace(self, problem: Problem) -> Trace:
        return Trace(self.trace_path(problem.problem_id))

    def trace_path(self, problem_id: str) -> Path:
        return self.path / "trace" / trace_name(problem_id)

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        return read_lines(self.path / name)

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        with (self.path / name).open("ab") as file:
            file.write(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))

    def replace(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Rewrite a JSONL file in one step: a kill leaves either the old file or the new one."""
        temporary = self.path / f".{name}.new"
        with temporary.open("wb") as file:
            for line in lines:
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / name)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        _write(self.path / "metrics.json", orjson.dumps(metrics, option=orjson.OPT_INDENT_2))

    def close(self) -> None:
        os.close(self._lock)


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSONL file of a run; none where there is no file yet."""
    if file.exists():
        with file.open("rb") as handle:
            yield from (orjson.loads(line) for line in handle if line.endswith(b"\n"))


def _manifest(identity: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": dict(identity),
        "prompts": prompt_hashes(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "problems": {p.problem_id: digest([p.question, p.answer]) for p in problems},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], growing: set[str]) -> list[str]:
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    grown = {k for k in keys if k in growing and old.get(k) is not None and new.get(k) is not None and new[k] > old[k]}
    return [f"{k}: {old.get(k)!r} in the run, {new.get(k)!r} now" for k in keys if k not in grown]


def _changed_problems(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changed = [k for k in old.keys() & new.keys() if old[k] != new[k]]
    return [f"problem {k!r}: its question or answer changed" for k in sorted(changed)]


def _locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 200).decode(errors="replace").strip()
        os.close(file)
        raise RunRefused(f"{path.parent} is in use by another run ({holder})") from None
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.rename(path)
