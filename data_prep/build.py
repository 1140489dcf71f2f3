"""``tmas build``: write the RL rows and the cold-start set, split by problem, with a data card and a page of samples.

The inputs and ``seed`` determine everything: the same command writes the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice

from data_prep.build_settings import BuildSettings
from data_prep.describe import describe, reports_of
from data_prep.difficulty import Say
from data_prep.pages import write_card, write_page
from data_prep.pool import read_problems, write_report
from data_prep.sft import Chat, chats, write_chats
from tmas.llm.tokens import ContextWindow, chat_template_tokens, token_counter
from tmas.records import Failure
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.training.contexts import TrainingProblem, normal_row, row_prompts, rows_from_run
from tmas.training.rows import Row, Source, Split, validate_rows, write_rows

SPLITS: tuple[Split, ...] = ("train", "validation")


def build(settings: BuildSettings, say: Say) -> None:
    """Write rows, chats, ``report.json``, the data card ``README.md`` and the page ``look.html`` to ``output_dir``."""
    builder, earlier = _Builder(settings), reports_of(settings.earlier)
    problems = [builder.in_its_split(problem) for problem in read_problems(settings.problems)]
    made: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        chosen = [problem for problem in problems if problem.split == split]
        made[f"{split}.parquet"] = builder.write_rows(chosen, split)
        made[f"sft_{split}.parquet"] = builder.write_chats(chosen, split)
    for name, counts in made.items():
        say(f"{name}: " + (", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())) or "nothing to write"))
    report = describe(settings, problems, made, builder.skipped, builder.count) | {"earlier": earlier}
    write_report(settings.output_dir / "report.json", report)
    write_card(settings.output_dir / "README.md", report)
    write_page(settings.output_dir / "look.html", settings.output_dir, settings.earlier, report)


class _Builder:
    """Writes the files of each split. ``skipped`` counts the rows and chats that were left out, by reason."""

    def __init__(self, settings: BuildSettings) -> None:
        self.settings = settings
        self.count = token_counter(settings.tokenizer)
        self.window = ContextWindow(
            self.count, settings.max_prompt_tokens, 0, template=chat_template_tokens(settings.tokenizer)
        )
        self.prompts = row_prompts(RecordedRun(settings.run), settings.prompts)
        self.skipped: Counter[str] = Counter()

    def in_its_split(self, problem: TrainingProblem) -> TrainingProblem:
        """The problem with its split, which depends only on the seed and the problem's id."""
        drawn = self._key(problem, "split") / 2**56 < self.settings.validation_share
        return problem.model_copy(update={"split": "validation" if drawn else "train"})

    def write_rows(self, problems: Sequence[TrainingProblem], split: Split) -> dict[str, int]:
        wanted = self._wanted(split)
        rows = [*self._memory_rows(problems, wanted)]
        rows += islice(self._normal_rows(problems, {row.extra_info.problem_id for row in rows}), wanted["normal"])
        rows.sort(key=lambda row: keyed_hash(self.settings.seed, row.extra_info.problem_id, _name(row)))
        path = self.settings.output_dir / f"{split}.parquet"
        if rows:
            write_rows(path, rows)
            validate_rows(path)
        else:
            path.unlink(missing_ok=True)
        return dict(Counter(row.source for row in rows))

    def write_chats(self, problems: Sequence[TrainingProblem], split: Split) -> dict[str, int]:
        counts: Counter[str] = Counter()
        path = self.settings.output_dir / f"sft_{split}.parquet"
        runs = map(RecordedRun, (self.settings.run, *self.settings.chat_runs))
        if not write_chats(path, (chat for run in runs for chat in self._chats(run, problems, counts))):
            path.unlink()
        self.skipped["chat: too long"] += counts.pop("too long", 0)
        return dict(counts)

    def _chats(self, run: RecordedRun, problems: Sequence[TrainingProblem], counts: Counter[str]) -> Iterator[Chat]:
        finished = [problem for problem in problems if problem.problem_id in run.problem_ids]
        return chats(run, finished, self.settings.sft, self.count, self.settings.seed, counts)

    def _wanted(self, split: Split) -> dict[Source, int]:
        share = 1.0 if split == "train" else self.settings.validation_share
        return {source: round(count * share) for source, count in self.settings.rows.by_source().items()}

    def _memory_rows(self, problems: Sequence[TrainingProblem], wanted: Mapping[Source, int]) -> Iterator[Row]:
        yield from rows_from_run(
            self.settings.run,
            problems,
            self.window,
            per_problem=self.settings.per_problem,
            wanted={source: count for source, count in wanted.items() if source != "normal"},
            iterations=self.settings.iterations,
            seed=self.settings.seed,
            prompts=self.prompts,
            on_skip=self._skip,
        )

    def _normal_rows(self, problems: Sequence[TrainingProblem], used: Container[str]) -> Iterator[Row]:
        """Rows without memory, in drawn order. Problems without another row come first."""
        for problem in sorted(problems, key=lambda p: (p.problem_id in used, self._key(p, "normal"))):
            row = normal_row(problem, self.window, prompts=self.prompts)
            if isinstance(row, Row):
                yield row
            else:
                self._skip(row)

    def _skip(self, failure: Failure) -> None:
        self.skipped[f"row: {failure.reason}"] += 1

    def _key(self, problem: TrainingProblem, name: str) -> int:
        return keyed_hash(self.settings.seed, problem.problem_id, name)


def _name(row: Row) -> str:
    return f"place of {row.source} {row.extra_info.iteration}"
