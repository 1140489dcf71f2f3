"""Shows whether grades identify correct candidates, and how often the rule and the judge agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tmas.records.evaluation_files import Calibration, Estimate, GradeCounts
from tmas.records.judgements import Agreement
from tmas.report.items import Cell, Lines, Point, Section, Series, Span, Table
from tmas.report.runs import ReportedRun, ReportedRuns

GRADES = {"0": "0 (fatal)", "0.5": "0.5 (gaps)", "1": "1 (complete)"}


def verifier_section(runs: ReportedRuns) -> Section | None:
    """Return the tab, or None if no run grades its candidates or no problem has a gold answer."""
    graded = [(run, found) for run in runs.runs if (found := run.evaluation.calibration[runs.scoring]).pairs]
    if not graded:
        return None
    chart = Lines(
        title="Calibration: mean grade of a candidate against correctness",
        x_label="mean grade",
        y_label="share right",
        series=[Series(run.name, run.color, _points(found)) for run, found in graded],
        percent=True,
        diagonal=True,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )
    agreements = [_agreement(*one) for one in _with_judge(runs.runs)]
    return Section(
        "verifier", "Verifier", [chart, *_errors(graded), _worth(graded), *_without_grade(graded), *agreements]
    )


def _points(calibration: Calibration) -> list[Point]:
    return [
        Point(b.mean_grade, b.accuracy, note=f"{b.count:,} candidates")
        for b in calibration.bins
        if b.mean_grade is not None and b.accuracy is not None
    ]


def _errors(graded: Sequence[tuple[ReportedRun, Calibration]]) -> Iterator[Table]:
    """Yield the rates of false accepts and false rejects. Evaluations of older versions have none."""
    rows = [
        [run.name, _rate(found.false_accept), _rate(found.false_reject)]
        for run, found in graded
        if found.false_accept.problems or found.false_reject.problems
    ]
    if rows:
        yield Table(
            title="How often the verifier is wrong",
            columns=["Run", "False accepts", "False rejects"],
            rows=rows,
            note="False accepts: wrong candidates whose mean grade reaches boundary.accept_grade of tmas evaluate. "
            "False rejects: right candidates whose mean grade does not. Both are means over problems.",
        )


def _without_grade(graded: Sequence[tuple[ReportedRun, Calibration]]) -> Iterator[Table]:
    """Yield the numbers of candidates without a grade. Evaluations of older versions do not have them."""
    rows = [
        [run.name, f"{found.graded:,}", f"{found.ungraded:,}", f"{found.unwritten:,}"]
        for run, found in graded
        if found.graded is not None
    ]
    if rows:
        yield Table(
            title="Candidates with and without a grade",
            columns=["Run", "With a grade", "No verification could be read", "Not written"],
            rows=rows,
            note="Over all iterations of the problems with a gold answer. A candidate was not written if its reply was "
            "truncated, for example. Candidates that are missing because of a server or a budget are not counted.",
        )


def _worth(graded: Sequence[tuple[ReportedRun, Calibration]]) -> Table:
    return Table(
        title="What a grade is worth",
        columns=[
            *("Run", "Candidates", "AUROC within problems", "AUROC pooled", "Brier", "ECE"),
            *GRADES.values(),
        ],
        groups=[Span("", 6), Span("share right where a verification gave", len(GRADES))],
        rows=[
            [
                run.name,
                f"{found.pairs:,}",
                _within(found.within_problems),
                *map(_number, (found.auroc, found.brier, found.ece)),
                *(_of_grade(found.grades[grade]) for grade in GRADES),
            ]
            for run, found in graded
        ],
        note="AUROC: the chance that a right candidate has a better mean grade than a wrong one; 0.5 is guessing. "
        "Within problems: of the same problem, as selection needs it; a mean over the problems that have both kinds. "
        "Pooled: of any problems, which also rewards grades that only separate easy problems from hard ones. "
        "Brier and ECE: how far mean grades are from correctness; 0 is best. The last columns count single grades.",
    )


def _of_grade(found: GradeCounts) -> Cell:
    return Cell("–" if found.accuracy is None else f"{found.accuracy:.1%}", f"of {found.count:,}")


def _rate(found: Estimate) -> Cell:
    if found.value is None or found.low is None or found.high is None:
        return Cell("–", "no such candidates")
    return Cell(f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}; problems: {found.problems}")


def _within(found: Estimate) -> Cell:
    if found.value is None or found.low is None or found.high is None:
        return Cell("–", "no problem has both kinds" if found.left_out else "run tmas evaluate again")
    return Cell(f"{found.value:.3f}", f"{found.low:.2f} to {found.high:.2f}; problems: {found.problems}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _with_judge(runs: Sequence[ReportedRun]) -> list[tuple[ReportedRun, Agreement]]:
    return [(run, found) for run in runs if (found := run.evaluation.agreement)]


def _agreement(run: ReportedRun, found: Agreement) -> Table:
    table, passes = found.rule_and_judge.table, found.passes
    said = list(next(iter(table.values())))
    share = found.rule_and_judge.agreement
    return Table(
        title=f"Rule and judge: {run.name}",
        columns=["Rule says", *(f"judge: {word}" for word in said)],
        rows=[[verdict, *(f"{counts[word]:,}" for word in said)] for verdict, counts in table.items()],
        note=f"Where both decide, they agree on {_percent(share)}. Between the judge's passes: all the same on "
        f"{_percent(passes.unanimous)} of {passes.pairs:,} answers, kappa {_number(passes.kappa)}.",
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
