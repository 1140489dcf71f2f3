"""Judges with an LLM whether final answers are equivalent. Every pass is written to disk before it is used.

``judgements.jsonl`` in a run directory is append-only. The judge is never asked again for a verdict that the file has.
A failed pass is repeated by the next evaluation. Each line ends with its checksum. A damaged line is set aside, and its
pass is repeated, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tmas.concurrency import gather_all
from tmas.evaluation.runs import Pair
from tmas.files import append_lines, complete_lines, cut_torn_line, text_digest, whole_file
from tmas.judge import EquivalenceVerdict, Judge, equivalence_prompt
from tmas.records import Failure
from tmas.records.checksums import checked_line
from tmas.records.judgements import JudgementFailure, JudgementLine
from tmas.records.reading import DefectiveFile, UnknownVersion, parsed
from tmas.run.damage import Damage, set_aside

Outcome = bool | Failure
"""Result of one pass: whether the judge found both answers equivalent, or the failure."""


class VerdictKey(NamedTuple):
    """Identifies a verdict across evaluations.

    ``judge``: identity of the judge. ``prompt``: hash of the prompt as it was sent. ``number``: the pass, from 0.
    """

    gold: str
    answer: str
    judge: str
    prompt: str
    number: int


class Judgements:
    """The judgements of one run directory.

    An incomplete last line, left by a killed process, is removed. Damaged lines are set aside
    (:func:`~tmas.run.damage.set_aside`). Raises :class:`UnknownVersion` for a line of another schema version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: dict[VerdictKey, JudgementLine] = {}
        if not file.exists():
            return
        end, damage = 0, list[Damage]()
        for line in complete_lines(file):
            try:
                self._take(parsed(line.content, JudgementLine, f"{file}:{line.number}"))
            except UnknownVersion:
                raise
            except DefectiveFile as error:
                damage.append(Damage(line, error.what))
            end = line.end
        if damage:
            set_aside(file, damage)
            damaged = {one.line.number for one in damage}
            with whole_file(file) as new:
                new.writelines(line.content for line in complete_lines(file) if line.number not in damaged)
        else:
            cut_torn_line(file, end)

    def get(self, key: VerdictKey) -> JudgementLine | None:
        """Return the line of the verdict; None if there is none yet."""
        return self._lines.get(key)

    def add(self, lines: Iterable[JudgementLine]) -> None:
        written = list(lines)
        append_lines(self.file, written, checked_line)
        for line in written:
            self._take(line)

    def _take(self, line: JudgementLine) -> None:
        if line.verdict is not None:
            self._lines[VerdictKey(line.gold, line.answer, line.judge, line.prompt, line.number)] = line


def recorded_majorities(file: Path) -> dict[Pair, bool | None]:
    """The majority of all recorded verdicts on each pair, of any judge: True for ``equivalent``, None for a tie.

    Empty if there is no ``file``. Nothing is written.
    """
    votes: dict[Pair, list[bool]] = {}
    for line in complete_lines(file) if file.exists() else ():
        found = parsed(line.content, JudgementLine, f"{file}:{line.number}")
        if found.verdict is not None:
            votes.setdefault((found.gold, found.answer), []).append(found.verdict == "equivalent")
    return {
        pair: None if 2 * sum(given) == len(given) else 2 * sum(given) > len(given) for pair, given in votes.items()
    }


async def judge_pairs(
    wanted: Collection[Pair],
    runs: Collection[tuple[Judgements, Collection[Pair]]],
    judge: Judge,
    on_judged: Callable[[], None],
    questions: Mapping[Pair, str] | None = None,
) -> dict[Pair, list[Outcome]]:
    """Return the outcome of every pass for each pair in ``wanted``. The judge is asked only for missing verdicts.

    ``runs`` gives the judgements file of each run and the pairs that occur in the run. Existing verdicts are taken
    from any of these files. Each file receives all outcomes for the pairs of its run. ``on_judged`` is called after
    each pair. ``questions``: the problem text that the judge is shown with a pair; pairs may be missing.
    """

    async def outcomes(pair: Pair) -> tuple[Pair, list[Outcome]]:
        lines = await _lines(pair, (questions or {}).get(pair, ""), [file for file, _ in runs], judge)
        for file in (file for file, pairs in runs if pair in pairs):
            file.add(line for key, line in lines.items() if file.get(key) is None)
        on_judged()
        return pair, [_outcome(line) for line in lines.values()]

    return dict(await gather_all(outcomes(pair) for pair in wanted))


async def _lines(
    pair: Pair, question: str, files: Collection[Judgements], judge: Judge
) -> dict[VerdictKey, JudgementLine]:
    gold, answer = pair
    prompt = equivalence_prompt(judge.prompts, gold, answer, question, judge.approximation_digits)
    asked_with = text_digest(prompt.encode(errors="replace"), 16)
    keys = [VerdictKey(gold, answer, judge.settings.identity, asked_with, n) for n in range(judge.settings.passes)]
    known = {key: line for key in keys for file in files if (line := file.get(key))}
    missing = [key for key in keys if key not in known]
    verdicts = await judge.ask(prompt, EquivalenceVerdict, len(missing)) if missing else []
    asked = {key: _line(key, judge.settings.name, verdict) for key, verdict in zip(missing, verdicts, strict=True)}
    return {key: known.get(key) or asked[key] for key in keys}


def _line(key: VerdictKey, model: str, verdict: EquivalenceVerdict | Failure) -> JudgementLine:
    failed = isinstance(verdict, Failure)
    return JudgementLine(
        gold=key.gold,
        answer=key.answer,
        judge=key.judge,
        model=model,
        prompt=key.prompt,
        number=key.number,
        verdict=None if failed else verdict.verdict,
        reasoning=None if failed else verdict.reasoning,
        failure=JudgementFailure(reason=verdict.reason, message=verdict.message) if failed else None,
    )


def _outcome(line: JudgementLine) -> Outcome:
    if line.failure:
        return Failure(reason=line.failure.reason, message=line.failure.message)
    return line.verdict == "equivalent"
