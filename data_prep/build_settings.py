"""The settings of ``tmas build``; conf/build.yaml lists them with their defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeInt

from data_prep.sft import SFTDataSettings
from tmas.prompts import PromptsSetting
from tmas.settings import Settings
from tmas.training.rows import Source


class Wanted(Settings):
    """Number of rows of each source in the training file. The defaults are the published numbers."""

    normal: NonNegativeInt = 2200
    experience: NonNegativeInt = 1600
    guideline: NonNegativeInt = 600

    def by_source(self) -> dict[Source, int]:
        return {"normal": self.normal, "experience": self.experience, "guideline": self.guideline}


class BuildSettings(Settings):
    """All settings of ``tmas build``; see conf/build.yaml.

    ``run``: the teacher's run directory, of the method ``tmas``; rows and chats come from it. ``chat_runs``: further
    run directories of the teacher, of any method, which give chats only. ``tokenizer``: the policy's tokenizer, as a
    folder, a hub name or ``estimate``. ``max_prompt_tokens``: maximum length of a prompt with its chat template (verl's
    ``data.max_prompt_length``). ``per_problem``: maximum number of rows with memory from one problem; a problem gives
    at most one ``normal`` row. ``iterations``: the iterations whose prompts become rows; null: all.
    ``validation_share``: share of the problems that are held out, and size of the validation file as a share of
    ``rows``. ``prompts``: a folder of prompts, which have to be those of the run; null: the run's own. ``earlier``:
    directories of the earlier steps, whose reports and removed rows the page shows.
    """

    problems: Path
    run: Path
    output_dir: Path
    tokenizer: str
    max_prompt_tokens: int = Field(ge=128)
    rows: Wanted = Wanted()
    per_problem: int = Field(default=3, ge=1)
    iterations: tuple[int, ...] | None = None
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 0
    prompts: PromptsSetting | None = None
    sft: SFTDataSettings = SFTDataSettings()
    chat_runs: tuple[Path, ...] = ()
    earlier: tuple[Path, ...] = ()
