"""The run directory: the output contract, the lock for one writer, and the check that a run can be resumed.

- ``config.yaml``: the composed settings
- ``manifest.json``: the fingerprint of the run
- ``prompts/``: the user's own agent prompts, used instead of built-in ones
- ``trace/``: every call, one file for each problem
- ``predictions.jsonl``: one line for each finished problem
- ``failures.jsonl``: one line for each failure
- ``metrics.json``: the totals
- ``control.jsonl``: the changes that ``tmas control`` made, if any (written by :mod:`tmas.run.control`)
- ``FILE.damaged``: lines of ``FILE`` that were set aside, if any
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
from tmas.files import append_lines, complete_lines, digest, write_json, write_lines, write_whole
from tmas.memory.settings import OLDER_RULES
from tmas.prompts import BUILT_IN, JUDGE, Prompts
from tmas.records import SCHEMA_VERSION, Problem, Record
from tmas.records.checksums import checked_line
from tmas.records.prices import Price
from tmas.records.reading import DefectiveFile, UnknownVersion, defect, parsed, read_records
from tmas.records.run_files import Manifest, Metrics
from tmas.run.damage import Damage, set_aside

Line = TypeVar("Line", bound=Record)
PACKAGES = ("tmas", "math-verify", "tokenizers", "vllm", "ray", "torch", "transformers", "verl")

CHAT_TEMPLATE = "chat_template"
"""Key in the manifest. It is present if the run counts the tokens of its models' chat templates."""


MAY_INCREASE = ("method.max_iterations",)
"""Keys of the fingerprint whose values may be larger when a run is resumed."""


class RunRefused(UserError):
    """The run cannot be started or resumed in this directory. The message says why and what to do."""

    @classmethod
    def with_differences(cls, path: Path, differing: Iterable[str]) -> Self:
        """``differing``: one line for each setting, prompt or problem that differs from the run in ``path``."""
        message = f"{path} contains a run with other settings, prompts or problems. Use another output_dir, or restore:"
        return cls("\n  ".join([message, *differing]))


class RunDirectory:
    """A run directory that is open for one writer. It is created, or the run in it is resumed.

    ``fingerprint``: the settings that the outcome depends on (dotted key -> value). ``may_increase``:
    keys of the fingerprint whose values may be larger when the run is resumed (``method.max_iterations``). ``config``:
    written to ``config.yaml``. ``prompts``: the prompts of the run; the user's own agent prompts are stored in
    ``prompts/``. ``prices``: the price of each role's model, written to the manifest. A resumed run without prices
    keeps the recorded ones.

    Raises :class:`RunRefused` if ``path`` is not empty and not a run directory, if another process writes in it, or if
    the run in it has recorded calls and differs in a setting, a prompt or a problem.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: Mapping[str, Any],
        problems: Sequence[Problem],
        may_increase: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
        prompts: Prompts = BUILT_IN,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self.path = path
        _check_is_run_or_empty(path)
        (path / "trace").mkdir(parents=True, exist_ok=True)
        self._lock = lock_file(path / ".lock")
        with ExitStack() as close_on_error:
            close_on_error.callback(self.close)
            manifest = _new_manifest(fingerprint, problems, prompts, prices)
            if (path / "manifest.json").exists():
                manifest = _merged_manifest(path, manifest, set(may_increase))
            self._write_manifest(manifest)
            self.prices = manifest.prices
            _write_own_prompts(path / "prompts", prompts)
            if config is not None:
                text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
                write_whole(path / "config.yaml", text.encode())
            close_on_error.pop_all()

    def _write_manifest(self, manifest: Manifest) -> None:
        absent = {name for name in ("told", "prices", CHAT_TEMPLATE) if getattr(manifest, name) is None}
        write_json(self.path / "manifest.json", manifest.model_dump(mode="json", exclude=absent))

    def record_reported(self, reported: Mapping[str, Any]) -> None:
        """Record values that servers reported for settings that are null (dotted key -> value).

        They are written to the manifest as ``told``, and are part of the fingerprint from then on. Raises
        :class:`RunRefused` if another value was recorded before.
        """
        manifest = _parse_manifest(self.path, _load_manifest_json(self.path))
        before = manifest.told or {}
        if differing := _differences(*_common(before, reported), set()):
            raise RunRefused.with_differences(self.path, differing)
        if reported.keys() - before.keys():
            self._write_manifest(manifest.model_copy(update={"told": {**before, **reported}}))

    def lines(self, name: str, kind: type[Line]) -> Iterator[Line]:
        """The records in a JSONL file of the run; none if there is no such file yet."""
        return read_records(self.path / name, kind)

    def undamaged_lines(self, name: str, kind: type[Line]) -> list[Line]:
        """Like :meth:`lines`, but damaged lines are set aside (:func:`~tmas.run.damage.set_aside`).

        The caller must replace the file, so that they are no longer in it.
        """
        file = self.path / name
        found: list[Line] = []
        damage: list[Damage] = []
        for line in complete_lines(file) if file.exists() else ():
            try:
                found.append(parsed(line.content, kind, f"{file}:{line.number}"))
            except UnknownVersion:
                raise
            except DefectiveFile as error:
                damage.append(Damage(line, error.what))
        if damage:
            set_aside(file, damage)
        return found

    def append(self, name: str, lines: Iterable[Record]) -> None:
        append_lines(self.path / name, lines, checked_line)

    def replace(self, name: str, lines: Iterable[Record]) -> None:
        """Rewrite a JSONL file in one step. If the process is killed, the old or the new file is complete."""
        write_lines(self.path / name, lines, checked_line)

    def write_metrics(self, metrics: Metrics) -> None:
        write_json(self.path / "metrics.json", metrics)

    def close(self) -> None:
        os.close(self._lock)


def check_resumable(path: Path, fingerprint: Mapping[str, Any], problems: Sequence[Problem], prompts: Prompts) -> None:
    """Raise :class:`RunRefused` if :class:`RunDirectory` would refuse to resume the run in ``path``. Writes nothing."""
    _merged_manifest(path, _new_manifest(fingerprint, problems, prompts, None), set(MAY_INCREASE))


def _merged_manifest(path: Path, new: Manifest, may_increase: set[str]) -> Manifest:
    """The manifest of a resumed run. Raises :class:`RunRefused` if the fingerprints differ."""
    # Read it even if nothing is recorded yet: a manifest that tmas did not write must not be overwritten.
    content = _load_manifest_json(path)
    if not _has_trace_or_predictions(path):
        return new
    old = _parse_manifest(path, content)
    differing = [
        *_differences(_with_implied(old.settings, new.settings), new.settings, may_increase),
        *_changed_prompts(path, old.prompts, new.prompts),
        *_changed_problems(old.problems, new.problems),
    ]
    if differing:
        raise RunRefused.with_differences(path, differing)
    return new.model_copy(
        update={
            "problems": {**old.problems, **new.problems},
            "told": old.told,
            "prices": new.prices or old.prices,
            CHAT_TEMPLATE: old.chat_template,
        }
    )


def _check_is_run_or_empty(path: Path) -> None:
    """Raise :class:`RunRefused` unless ``path`` is new, empty or a run directory.

    A folder also counts as empty if it only has files of a run that was killed before it had written its manifest.
    """
    if path.exists() and not path.is_dir():
        raise RunRefused(f"{path} is a file, not a run directory: use another output_dir")
    if (path / "manifest.json").exists():
        return
    for entry in path.rglob("*"):
        if str(entry.relative_to(path)) not in (".lock", "trace", ".manifest.json.new"):
            raise RunRefused(
                f"{path} is neither a run directory nor empty (it contains {entry}): use another output_dir"
            )


def _has_trace_or_predictions(path: Path) -> bool:
    """Whether the run has a trace or a prediction. Before that, its settings may still change."""
    files = [*path.glob("trace/*"), path / "predictions.jsonl"]
    return any(file.exists() and file.stat().st_size for file in files)


def _load_manifest_json(path: Path) -> dict[str, Any]:
    try:
        manifest = orjson.loads((path / "manifest.json").read_bytes())
    except orjson.JSONDecodeError as error:
        raise RunRefused(
            f"{path / 'manifest.json'} is damaged, or was not written by tmas ({error}): use another output_dir"
        ) from None
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        raise RunRefused(f"{path / 'manifest.json'} was not written by tmas: use another output_dir")
    return manifest


def _parse_manifest(path: Path, content: Mapping[str, Any]) -> Manifest:
    """The manifest of the run in ``path``; :class:`RunRefused` if it is of another version or damaged."""
    if content["schema_version"] != SCHEMA_VERSION:
        raise RunRefused(
            f"{path} was written in schema version {content['schema_version']}, not {SCHEMA_VERSION}: use another"
            " output_dir"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise RunRefused(f"{path / 'manifest.json'}: {defect(error)}") from None


def _new_manifest(
    fingerprint: Mapping[str, Any], problems: Sequence[Problem], prompts: Prompts, prices: Mapping[str, Price] | None
) -> Manifest:
    return Manifest(
        settings=dict(fingerprint),
        prompts=prompts.hashes(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        python=platform.python_version(),
        chat_template="counted",
        problems={p.problem_id: digest([p.question, p.answer]) for p in problems},
        prices=dict(prices) if prices else None,
    )


def counts_chat_template(path: Path) -> bool:
    """Whether the run in ``path`` counts the tokens of its models' chat templates to limit its prompts.

    True if there is no run yet. A run that an older version started reserves 64 tokens for every template, even after
    it is resumed.
    """
    return not (path / "manifest.json").exists() or CHAT_TEMPLATE in _load_manifest_json(path)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


IMPLIED_BY_OLDER_VERSIONS = {
    "method.agents.max_item_chars": 1000,
    **{f"method.{bank}.{name}": value for bank in ("experience", "guidelines") for name, value in OLDER_RULES.items()},
}
"""Settings that older versions did not have, with the values that correspond to what those versions did."""


def _with_implied(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an older run, completed with the values that its version implied."""
    return {**{name: value for name, value in IMPLIED_BY_OLDER_VERSIONS.items() if name in new}, **old}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], may_increase: set[str]) -> list[str]:
    """One line for each key with different values, except for increased values of the keys in ``may_increase``."""
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    set_in_both = {k for k in keys if old.get(k) is not None and new.get(k) is not None}
    increased = {k for k in set_in_both & may_increase if new[k] > old[k]}
    return [f"{k}: {old.get(k)!r} in the run, {new.get(k)!r} now" for k in keys if k not in increased]


def _common(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both mappings, each without the names that the other one does not have."""
    names = old.keys() & new.keys()
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def _changed_prompts(path: Path, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    # Ignore a prompt file that only one of the two versions of tmas has: the run did not use a file that is new, and a
    # file that was removed is not used any more.
    old, new = ({f"{name}.jinja": value for name, value in hashes.items()} for hashes in _common(old, new))
    lines = [f"prompt {line}" for line in _differences(old, new, set())]
    kept = path / "prompts"
    return [*lines, f"(set prompts={kept} to use this run's own prompts)"] if lines and kept.is_dir() else lines


def _changed_problems(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changed = [k for k in old.keys() & new.keys() if old[k] != new[k]]
    return [f"problem {k!r}: its question or answer changed" for k in sorted(changed)]


def lock_file(path: Path) -> int:
    """Lock ``path`` for this process as long as the returned file descriptor is open.

    Raises :class:`RunRefused` if another process has the lock.
    """
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


def last_lock_holder(path: Path) -> str | None:
    """The process that opened the run directory ``path`` last, and its host. None if nothing opened it yet."""
    try:
        return (path / ".lock").read_text(errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _write_own_prompts(folder: Path, prompts: Prompts) -> None:
    """Write the user's own agent prompts to ``folder``, and delete other prompts there."""
    own = {f"{name}.jinja": text for name, text in prompts.replaced.items() if not name.startswith(JUDGE)}
    for file in folder.glob("*.jinja"):
        if file.name not in own:
            file.unlink()
    for name, text in own.items():
        folder.mkdir(exist_ok=True)
        write_whole(folder / name, text.encode())
