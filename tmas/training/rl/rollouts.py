"""Kept rollouts: the responses of each training step with their rewards, for reading and for ``tmas rescore``.

verl's own format has the prompt, the response, the gold answer and the score. It lacks the row's source and memory
bank, the parts of the reward and the judge's verdicts, without which no response can be rewarded again.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from tmas.errors import UserError
from tmas.files import json_line, whole_file
from tmas.llm.thinking import OPEN, split_thinking
from tmas.records import SCHEMA_VERSION, Record
from tmas.records.reading import DefectiveFile, Version, parsed
from tmas.rewards.questions import KeptVerdicts, unpacked

_SUFFIX = ".jsonl.gz"
UNKEPT = ("prompts", "judge", "checker")
"""Settings of the reward that are not kept with the responses, because they are in no formula of the reward."""


class KeptStep(Record):
    """The first line of a file: the step, and the settings that its rewards and advantages were computed with.

    ``algorithm``: verl's settings of the advantage. ``reward``: the reward's settings, flat, with dotted keys.
    ``max_response_tokens``: the longest that a response can be; 0 if unknown, in files of earlier versions.
    """

    schema_version: Version = SCHEMA_VERSION
    step: int
    algorithm: dict[str, JsonValue] = Field(default_factory=dict)
    reward: dict[str, JsonValue] = Field(default_factory=dict)
    max_response_tokens: int = 0


class KeptResponse(Record):
    """A response with its reward.

    ``text``: as the reward function got it, or without the thinking. ``thinking_opened``: the thinking in ``text`` has
    no opening tag, because the prompt ends with that tag. ``reward``: the reward function's report (docs/rewards.md),
    without the verdicts and ``thinking_opened``. ``advantage``: mean over the tokens that the policy is trained on.
    """

    text: str
    thinking_opened: bool = False
    reward: dict[str, str | int | float]
    verdicts: tuple[KeptVerdicts, ...] = ()
    advantage: float


class KeptPrompt(Record):
    """The other lines: a prompt with its responses, which are compared with each other.

    ``prompt``: the text of all its messages. ``gold``: the gold answer. ``extra_info``: that of the row.
    """

    uid: str
    data_source: str
    gold: str
    prompt: str
    extra_info: dict[str, JsonValue]
    responses: tuple[KeptResponse, ...]

    def reward_input(self, response: KeptResponse, max_response_tokens: int) -> dict[str, Any]:
        """The ``extra_info`` that the reward function got for ``response``, a response of this prompt.

        ``max_response_tokens``: that of the prompt's step.
        """
        given = {key: response.reward[key] for key in ("truncated", "response_tokens")}
        given |= {"max_response_tokens": max_response_tokens, "thinking_opened": response.thinking_opened}
        return {**self.extra_info, **given, "prompt": self.prompt}


def prompt_text(messages: Iterable[Mapping[str, str]]) -> str:
    """The text of all messages of a prompt, as the reward and the kept rollouts have it."""
    return "\n\n".join(message["content"] for message in messages)


def kept_response(text: str, report: dict[str, Any], advantage: float, thinking: bool) -> KeptResponse:
    """Make the record of a response.

    ``report``: the reward function's report, with the verdicts. ``thinking``: keep the text of the thinking, too.
    """
    reward = {key: value for key, value in report.items() if key not in ("verdicts", "thinking_opened")}
    opened = bool(report["thinking_opened"])
    if not thinking:
        text, opened = split_thinking(OPEN + text if opened else text, "").text, False
    return KeptResponse(
        text=text,
        thinking_opened=opened,
        reward=reward,
        verdicts=unpacked(report["verdicts"]),
        advantage=advantage,
    )


def write_step(folder: Path, step: KeptStep, prompts: Iterable[KeptPrompt], max_bytes: float) -> Path:
    """Write the file of a step, atomically, and return its path.

    Then the files of the earliest steps are removed until all files together have at most ``max_bytes`` bytes. The file
    of this step always stays.
    """
    path = folder / f"{step.step:06d}{_SUFFIX}"
    with whole_file(path) as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as compressed:
        for line in (step, *prompts):
            compressed.write(json_line(line))
    files = [other for other in kept_files(folder) if other != path]
    size = path.stat().st_size + sum(other.stat().st_size for other in files)
    for other in files:
        if size <= max_bytes:
            break
        size -= other.stat().st_size
        other.unlink()
    return path


def kept_files(folder: Path) -> list[Path]:
    """The files of ``folder``, or of the folder ``rollouts`` in it, in the order of the steps."""
    place = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    return sorted(place.glob(f"[0-9]*{_SUFFIX}"), key=lambda file: int(file.name.removesuffix(_SUFFIX)))


def read_step(file: Path) -> tuple[KeptStep, Iterator[KeptPrompt]]:
    """Read the file of a step; one prompt at a time is in memory.

    Raises :class:`~tmas.records.reading.DefectiveFile` with the file and line of a defect, in the iterator as well.
    """
    lines = _lines(file)
    step = parsed(next(lines, (1, b""))[1], KeptStep, f"{file}:1")
    return step, (parsed(line, KeptPrompt, f"{file}:{number}") for number, line in lines)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(file) as content:
            yield from enumerate(content, 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DefectiveFile(f"damaged ({error})", where=str(file)) from None


def existing_files(places: Iterable[Path]) -> list[Path]:
    """The files of all ``places``. Raises ``UserError`` for a place that has none."""
    found: list[Path] = []
    for place in places:
        files = kept_files(place) if place.is_dir() else [place] if place.name.endswith(_SUFFIX) else []
        if not files:
            raise UserError(
                "contains no kept rollouts",
                where=str(place),
                remedy="Name the output_dir of a training run, its folder rollouts, or files in it.",
            )
        found += files
    return found
