"""The run directory, the project's output contract: who may write it, whether a run may go on in it, what it holds.

``config.yaml`` the composed settings · ``manifest.json`` what makes this run this run · ``prompts/`` the prompts that a
user replaced · ``trace/`` every call · ``predictions.jsonl`` a line a finished problem ·
``failures.jsonl`` a line a failure · ``metrics.json`` the totals.
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
import yaml
from pydantic import ValidationError

from tmas.errors import UserError
from tmas.files import append_lines, digest, write_json, write_lines, write_whole
from tmas.prompts import BUILT_IN, JUDGE, Prompts
from tmas.records import SCHEMA_VERSION, Problem, Record
from tmas.records.reading import defect, read_records
from tmas.records.run_files import Manifest, Metrics

Line = TypeVar("Line", bound=Record)
PACKAGES = ("tmas", "math-verify", "tokenizers", "vllm", "ray", "torch", "transformers", "verl")

CHAT_TEMPLATE = "chat_template"
"""Key of the manifest of a run that counts the tokens of its models' chat templates."""


class RunRefused(UserError):
    """This directory cannot take this run; the message says why and what to do."""

    @classmethod
    def because(cls, path: Path, differing: Iterable[str]) -> Self:
        """Where a run lies in ``path`` that differs in these settings."""
        told = f"{path} holds a run with other settings; use another output_dir, or set these back:"
        return cls("\n  ".join([told, *differing]))


class RunDirectory:
    """Opens ``path`` for one writer: creates it, or goes on with the run that lies in it, if it has recorded anything.

    ``identity``: the settings that the outcome depends on, flat (dotted key -> value). ``growing``: those of them that
    may be raised on resume (``method.max_iterations``). ``prompts``: all that the run uses; those of agents that are
    replaced are kept in ``prompts/``. Raises :class:`RunRefused` where another run or something else
    lies there, a run is still writing there, or a setting differs.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        problems: Sequence[Problem],
        growing: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
        prompts: Prompts = BUILT_IN,
    ) -> None:
        self.path = path
        _refuse_foreign(path)
        (path / "trace").mkdir(parents=True, exist_ok=True)
        self._lock = locked(path / ".lock")
        with ExitStack() as unless_refused:
            unless_refused.callback(self.close)
            manifest = _manifest(identity, problems, prompts)
            if (path / "manifest.json").exists():
                manifest = self._resumed_manifest(manifest, set(growing))
            self._write_manifest(manifest)
            _keep(path / "prompts", prompts)
            if config is not None:
                text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
                write_whole(path / "config.yaml", text.encode())
            unless_refused.pop_all()

    def _resumed_manifest(self, new: Manifest, growing: set[str]) -> Manifest:
        content = _content_of_manifest(self.path)
        if not _has_recorded(self.path):
            return new
        old = _manifest_in(self.path, content)
        differing = [
            *_differences(old.settings, new.settings, growing),
            *_changed_prompts(self.path, old.prompts, new.prompts),
            *_changed_problems(old.problems, new.problems),
        ]
        if differing:
            raise RunRefused.because(self.path, differing)
        return new.model_copy(
            update={
                "problems": {**old.problems, **new.problems},
                "told": old.told,
                CHAT_TEMPLATE: old.chat_template,
            }
        )

    def _write_manifest(self, manifest: Manifest) -> None:
        absent = {name for name in ("told", CHAT_TEMPLATE) if getattr(manifest, name) is None}
        write_json(self.path / "manifest.json", manifest.model_dump(mode="json", exclude=absent))

    def hold(self, told: Mapping[str, Any]) -> None:
        """What servers told in place of settings that are null, from now on as good as set: :class:`RunRefused` where
        they told otherwise before."""
        manifest = _manifest_in(self.path, _content_of_manifest(self.path))
        before = manifest.told or {}
        if differing := _differences(*_in_both(before, told), set()):
            raise RunRefused.because(self.path, differing)
        if told.keys() - before.keys():
            self._write_manifest(manifest.model_copy(update={"told": {**before, **told}}))

    def lines(self, name: str, kind: type[Line]) -> Iterator[Line]:
        """The records in a JSONL file of the run; none if there is no such file yet."""
        return read_records(self.path / name, kind)

    def append(self, name: str, lines: Iterable[Record]) -> None:
        append_lines(self.path / name, lines)

    def replace(self, name: str, lines: Iterable[Record]) -> None:
        """Rewrite a JSONL file in one step: a kill leaves either the old file or the new one."""
        write_lines(self.path / name, lines)

    def write_metrics(self, metrics: Metrics) -> None:
        write_json(self.path / "metrics.json", metrics.model_dump(mode="json"))

    def close(self) -> None:
        os.close(self._lock)


def _refuse_foreign(path: Path) -> None:
    """A run is begun only in an empty folder, or in one that holds no more than what a killed start leaves."""
    if (path / "manifest.json").exists():
        return
    for entry in path.rglob("*"):
        if str(entry.relative_to(path)) not in (".lock", "trace", ".manifest.json.new"):
            raise RunRefused(f"{path} is no run directory and not empty (it holds {entry}): use another output_dir")


def _has_recorded(path: Path) -> bool:
    """Whether the run has anything yet that other settings would contradict."""
    files = [*path.glob("trace/*"), path / "predictions.jsonl"]
    return any(file.exists() and file.stat().st_size for file in files)


def _content_of_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = orjson.loads((path / "manifest.json").read_bytes())
    except orjson.JSONDecodeError as error:
        raise RunRefused(f"{path / 'manifest.json'} is damaged, or not of this project ({error})") from None
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        raise RunRefused(f"{path / 'manifest.json'} is not of this project: use another output_dir")
    return manifest


def _manifest_in(path: Path, content: Mapping[str, Any]) -> Manifest:
    """The manifest of the run in ``path``; :class:`RunRefused` if it is of another version or damaged."""
    if content["schema_version"] != SCHEMA_VERSION:
        raise RunRefused(f"{path} was written in schema version {content['schema_version']}, not {SCHEMA_VERSION}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise RunRefused(f"{path / 'manifest.json'}: {defect(error)}") from None


def _manifest(identity: Mapping[str, Any], problems: Sequence[Problem], prompts: Prompts) -> Manifest:
    return Manifest(
        settings=dict(identity),
        prompts=prompts.hashes(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        python=platform.python_version(),
        chat_template="counted",
        problems={p.problem_id: digest([p.question, p.answer]) for p in problems},
    )


def counts_chat_template(path: Path) -> bool:
    """Whether the run in ``path`` counts the tokens of its models' chat templates, which limit its prompts.

    A run that an older version began keeps 64 tokens free for every template, also when it is resumed.
    """
    return not (path / "manifest.json").exists() or CHAT_TEMPLATE in _content_of_manifest(path)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], growing: set[str]) -> list[str]:
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    grown = {k for k in keys if k in growing and old.get(k) is not None and new.get(k) is not None and new[k] > old[k]}
    return [f"{k}: {old.get(k)!r} in the run, {new.get(k)!r} now" for k in keys if k not in grown]


def _in_both(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both have: a prompt file that came since then, or went, was not of a method that can go on."""
    names = old.keys() & new.keys()
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def _changed_prompts(path: Path, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    old, new = ({f"{name}.jinja": of for name, of in hashes.items()} for hashes in _in_both(old, new))
    lines = [f"prompt {line}" for line in _differences(old, new, set())]
    kept = path / "prompts"
    return [*lines, f"(prompts={kept} gives the prompts that the run has)"] if lines and kept.is_dir() else lines


def _changed_problems(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changed = [k for k in old.keys() & new.keys() if old[k] != new[k]]
    return [f"problem {k!r}: its question or answer changed" for k in sorted(changed)]


def locked(path: Path) -> int:
    """Lock the file for this process while the returned descriptor is open; :class:`RunRefused` if another has it."""
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


def _keep(folder: Path, prompts: Prompts) -> None:
    """Makes ``folder`` hold the agents' prompts that are replaced, and no others."""
    replaced = {f"{name}.jinja": text for name, text in prompts.replaced.items() if not name.startswith(JUDGE)}
    for file in folder.glob("*.jinja"):
        if file.name not in replaced:
            file.unlink()
    for name, text in replaced.items():
        folder.mkdir(exist_ok=True)
        write_whole(folder / name, text.encode())
