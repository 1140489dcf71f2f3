"""The items of the memory banks, with the candidates that were shown them.

A candidate that was shown an item and is right was not necessarily helped by it: all exploiting candidates of an
iteration share one prompt. So the tables count candidates, and compare them with the other candidates of the same
iterations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tmas.records import Experience, Guideline
from tmas.records.run_files import PredictedCandidate, Prediction
from tmas.report.items import Cell, Choice, Item, Note, Option, ProseCell, Span, Table
from tmas.report.problems import judge_verdicts, with_judge
from tmas.report.runs import ReportedRun

LONGEST = 200
"""Maximum number of characters of an item's text. The page of its problem shows all of it."""
PLACES = 4
"""Maximum number of candidates that are named in a cell."""
NOTE = (
    "The {shown} of {of} items that were shown to the most candidates. A candidate was shown an item if its prompt "
    "contained it; candidates are named iteration/candidate. This does not say that the item helped or misled it: "
    "all exploiting candidates of an iteration share one prompt. Others: the candidates of the same iterations that "
    "were not shown the item. Undecided candidates are neither right nor wrong."
)
UNKNOWN = (
    "No candidate of a problem with a gold answer was shown an item, or the run was made by a version that did not "
    "record it."
)


@dataclass
class ShownItem:
    """An item of a problem's bank in its latest form, and the candidates that were shown it, as (iteration, index).

    ``others``: the sampled candidates of the same iterations that were not shown it, and how many of them are right.
    """

    problem_id: str
    item: Experience | Guideline
    shown: list[tuple[int, int]] = field(default_factory=list)
    right: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[tuple[int, int]] = field(default_factory=list)
    others: int = 0
    others_right: int = 0


def bank_item_tables(runs: Sequence[ReportedRun], scoring: str, limit: int) -> list[Item]:
    """Return the tables of the items of each run. Empty if there are no runs or ``limit`` is 0."""
    if not runs or not limit:
        return []
    options = [Option(run.name, _of_run(run, scoring, limit)) for run in runs]
    return [Choice("Bank items", options)]


def _of_run(run: ReportedRun, scoring: str, limit: int) -> Item:
    judge = judge_verdicts(run) if scoring == "judge" else {}
    found = [item for line in run.predictions() if line.gold for item in shown_items(with_judge(line, judge))]
    if not found:
        return Note(UNKNOWN)
    found.sort(key=lambda one: -len(one.shown))
    return Table(
        title=f"Items of the memory banks: {run.name}",
        columns=["Problem", "Item", "Text", "all", "right", "wrong", "right"],
        rows=[_row(one) for one in found[:limit]],
        text_columns=3,
        groups=[Span("", 3), Span("candidates that were shown it", 3), Span("others", 1)],
        note=NOTE.format(shown=f"{min(limit, len(found)):,}", of=f"{len(found):,}"),
    )


def shown_items(line: Prediction) -> Iterator[ShownItem]:
    """Yield the items of a problem that at least one candidate was shown, in the order in which they were shown."""
    latest: dict[str, Experience | Guideline] = {}
    found: dict[str, ShownItem] = {}
    for iteration in line.iterations:
        ids = dict.fromkeys(item_id for candidate in iteration.candidates for item_id in candidate.shown)
        for item_id in ids:
            entry = found.setdefault(item_id, ShownItem(line.problem_id, latest[item_id]))
            for candidate in iteration.candidates:
                _count(entry, iteration.iteration, candidate)
        latest |= {item.item_id: item for item in (*iteration.experience_bank, *iteration.guideline_bank)}
    for item_id, entry in found.items():
        entry.item = latest[item_id]
        yield entry


def _count(entry: ShownItem, t: int, candidate: PredictedCandidate) -> None:
    if entry.item.item_id in candidate.shown:
        place = (t, candidate.candidate)
        entry.shown.append(place)
        if candidate.correct == "equal":
            entry.right.append(place)
        elif candidate.correct == "different" or (candidate.answer is None and candidate.is_sampled):
            entry.wrong.append(place)
    elif candidate.is_sampled:
        entry.others += 1
        entry.others_right += candidate.correct == "equal"


def _row(one: ShownItem) -> list[str | Cell]:
    item = one.item
    kind = item.kind if isinstance(item, Experience) else "guideline"
    state = f"refuted {kind}" if item.refuted is not None else kind
    text = item.text if len(item.text) <= LONGEST else f"{item.text[: LONGEST - 1]}…"
    others = f"{one.others_right} of {one.others}" if one.others else "–"
    return [
        one.problem_id,
        Cell(item.item_id, f"{state}, support {item.support}"),
        ProseCell(text),
        str(len(one.shown)),
        Cell(str(len(one.right)), _places(one.right)),
        Cell(str(len(one.wrong)), _places(one.wrong)),
        others,
    ]


def _places(places: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(f"{t}/{i}" for t, i in places[:PLACES])
    return f"{named} and {len(places) - PLACES} more" if len(places) > PLACES else named
