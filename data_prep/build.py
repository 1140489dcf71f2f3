"""``tmas build``: writes RL rows and chats for SFT, split by problem, with a data card and a page of samples.

The RL rows are ``train.parquet`` and ``validation.parquet``. The chats (``sft_train.parquet`` and
``sft_validation.parquet``) are the cold-start set.

The inputs and ``seed`` determine everything: the same command writes the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.describe import describe
from tmas.data_prep.pages import write_card, write_page
from tmas.data_prep.pool import Log, read_problems
from tmas.data_prep.reports import VerificationBin, earlier_reports
from tmas.data_prep.sft import chats, write_chats
from tmas.data_prep.verification import VerificationRows
from tmas.errors import UserError
from tmas.files import write_json
from tmas.llm.tokens import ContextWindow, chat_template_tokens, token_counter
from tmas.records import Failure, Message
from tmas.run.replay import RecordedRun
from tmas.run.session import keyed_hash
from tmas.training.contexts import (
    OWN_PROMPTS_REMEDY,
    TrainingProblem,
    check_prompts,
    normal_row,
    row_prompts,
    rows_from_run,
)
from tmas.training.rows import Source, Split, TrainingRow, validate_rows, write_rows

SPLITS: tuple[Split, ...] = ("train", "validation")


def build(settings: BuildSettings, log: Log) -> None:
    """Write rows, chats, ``report.json``, the data card ``README.md`` and the page ``look.html`` to ``output_dir``."""
    # Read the problems before the run. If both are missing, the error has to name tmas filter, which comes before
    # tmas distill.
    filtered = list(read_problems(settings.problems, "tmas filter"))
    builder, earlier = _Builder(settings), earlier_reports(settings.earlier)
    if message := builder.unfinished_message():
        log(message)
    problems = [builder.with_split(problem) for problem in filtered]
    made: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        chosen = [problem for problem in problems if problem.split == split]
        made[f"{split}.parquet"] = builder.write_rows(chosen, split)
        made[f"sft_{split}.parquet"] = builder.write_chats(chosen, split)
    for name, counts in made.items():
        log(f"{name}: " + (", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())) or "nothing to write"))
    skipped = builder.skipped + Counter({f"candidate: {why}": n for why, n in builder.verifications.left_out.items()})
    count_tokens = builder.count_tokens
    report = describe(settings, builder.teacher_run, problems, made, skipped, count_tokens, earlier, builder.bins)
    write_json(settings.output_dir / "report.json", report)
    write_card(settings.output_dir / "README.md", report)
    write_page(settings.output_dir / "look.html", settings.output_dir, settings.earlier, report)


class _Builder:
    """Opens the recorded runs, and writes the files of each split.

    ``runs``: the runs that give chats; the first of them, ``teacher_run``, gives rows, too. ``skipped``: number of rows
    and chats that were left out, by reason. ``bins``: number of verification rows of each file, by range of the
    problems' pass rate.
    """

    def __init__(self, settings: BuildSettings) -> None:
        self.settings = settings
        if not (settings.run / "manifest.json").is_file():
            remedy = "Run tmas distill first, or set run to the teacher's run directory."
            raise UserError("not a run directory: manifest.json is missing", where=settings.run, remedy=remedy)
        self.runs = [RecordedRun(path) for path in (settings.run, *settings.chat_runs)]
        self.teacher_run = self.runs[0]
        self.prompts = row_prompts(self.teacher_run, settings.prompts)
        self.count_tokens = token_counter(settings.tokenizer)
        self.template_tokens = chat_template_tokens(settings.tokenizer)
        self.system = [Message(role="system", content=settings.system_message)] if settings.system_message else []
        self.skipped: Counter[str] = Counter()
        given = settings.verification.runs
        verification_runs = [self.teacher_run] if given is None else [RecordedRun(path) for path in given]
        if settings.rows.verification:
            self._check_verification_prompts(verification_runs)
        self.verifications = VerificationRows(verification_runs, settings.verification, settings.seed)
        self.bins: dict[str, list[VerificationBin]] = {}

    def _check_verification_prompts(self, runs: Sequence[RecordedRun]) -> None:
        """Compare the prompt of the verification rows with that of the runs that verified, or else with the teacher's.

        Raises ``UserError`` if it differs.
        """
        verifying = [run for run in runs if "verification" in run.manifest.models]
        for run in verifying or [self.teacher_run]:
            if run.path != self.teacher_run.path:
                remedy = "Set prompts to a folder with these prompts of the run, or leave it out of verification.runs."
            else:
                remedy = None if self.settings.prompts is None else OWN_PROMPTS_REMEDY
            check_prompts(run, self.prompts, ("verification",), remedy)

    def unfinished_message(self) -> str | None:
        """A message for the user if the teacher's run is not finished.

        Raises ``UserError`` if none of its problems is finished.
        """
        done, asked = len(self.teacher_run.problem_ids), len(self.teacher_run.manifest.problems)
        if not done:
            remedy = "Run the same tmas distill command again to resume it."
            raise UserError("no problem of the teacher's run is finished", where=self.settings.run, remedy=remedy)
        if done == asked:
            return None
        return (
            f"{self.settings.run}: only {done:,} of {asked:,} problems are finished; the others give no rows."
            " Run the same tmas distill command again to finish the others."
        )

    def with_split(self, problem: TrainingProblem) -> TrainingProblem:
        """The problem with its split, which depends only on the seed and the problem's id."""
        drawn = keyed_hash(self.settings.seed, problem.problem_id, "split") / 2**56
        return problem.model_copy(update={"split": "validation" if drawn < self.settings.validation_share else "train"})

    def write_rows(self, problems: Sequence[TrainingProblem], split: Split) -> dict[str, int]:
        """Write the RL rows of a split; returns the number of rows by source.

        If there are no rows, the file is deleted.
        """
        settings, seed = self.settings, self.settings.seed
        share = 1.0 if split == "train" else settings.validation_share
        wanted: dict[Source, int] = {s: round(count * share) for s, count in settings.rows.by_source().items()}
        normal_wanted, verification_wanted = wanted.pop("normal"), wanted.pop("verification")
        window = self._window()
        skipped: list[Failure] = []
        rows = list(
            rows_from_run(
                self.teacher_run,
                problems,
                window,
                per_problem=settings.per_problem,
                wanted=wanted,
                iterations=settings.iterations,
                seed=seed,
                prompts=self.prompts,
                on_skip=skipped.append,
            )
        )
        # Rows without memory, in random order. Problems without another row come first.
        used = {row.extra_info.problem_id for row in rows}
        drawn = sorted(problems, key=lambda p: (p.problem_id in used, keyed_hash(seed, p.problem_id, "normal")))
        made = (normal_row(problem, window, prompts=self.prompts) for problem in drawn)
        rows += islice(_without_failures(made, skipped), normal_wanted)
        self.skipped.update(f"row: {failure.reason}" for failure in skipped)
        verifications, bins = self.verifications.rows(problems, verification_wanted, window, self.prompts)
        rows += verifications
        if bins:
            self.bins[f"{split}.parquet"] = bins
        rows = [row.model_copy(update={"prompt": (*self.system, *row.prompt)}) for row in rows]
        rows.sort(key=lambda row: keyed_hash(seed, row.extra_info.problem_id, _row_name(row)))
        path = settings.output_dir / f"{split}.parquet"
        if rows:
            write_rows(path, rows)
            validate_rows(path)
        else:
            path.unlink(missing_ok=True)
        return dict(Counter(row.source for row in rows))

    def _window(self) -> ContextWindow:
        """The length limit of a prompt: ``max_prompt_tokens`` less the system message and the chat template.

        Raises ``UserError`` if they leave no room for a prompt.
        """
        longest = self.settings.max_prompt_tokens
        taken = self.template_tokens + sum(self.count_tokens(message.content) for message in self.system)
        limit = f"{taken:,} tokens, but a prompt has at most {longest:,}"
        if self.system and taken >= longest:
            message = f"the system message and the chat template have {limit}"
            raise UserError(message, where="system_message", remedy="Shorten it, or increase max_prompt_tokens.")
        if taken >= longest:
            raise UserError(f"the chat template has {limit}", where="max_prompt_tokens", remedy="Increase it.")
        return ContextWindow(self.count_tokens, longest, 0, template=taken)

    def write_chats(self, problems: Sequence[TrainingProblem], split: Split) -> dict[str, int]:
        """Write the chats of a split; returns the number of chats by role or mode. If there are none, the file is
        deleted.

        The chats are written while the traces are read, so that no run has to fit into memory.
        """
        settings, counts = self.settings, Counter[str]()
        path = settings.output_dir / f"sft_{split}.parquet"
        found = (
            chat
            for run in self.runs
            for chat in chats(
                run,
                [problem for problem in problems if problem.problem_id in run.problem_ids],
                settings.sft,
                self.count_tokens,
                settings.seed,
                counts,
                self.template_tokens,
            )
        )
        if not write_chats(path, found):
            path.unlink()
        self.skipped["chat: too long"] += counts.pop("too long", 0)
        return dict(counts)


def _without_failures(made: Iterable[TrainingRow | Failure], failures: list[Failure]) -> Iterator[TrainingRow]:
    for row in made:
        if isinstance(row, Failure):
            failures.append(row)
        else:
            yield row


def _row_name(row: TrainingRow) -> str:
    """The text that is hashed, with the seed and the problem's id, to decide the position of a row in the file."""
    candidate = f" {row.truth.candidate}" if row.truth else ""
    return f"place of {row.source} {row.extra_info.iteration}{candidate}"
