"""The settings of ``tmas build``. conf/build.yaml lists them with their defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeInt

from tmas.data_prep.pool import WorkspaceFolder
from tmas.data_prep.sft import SFTDataSettings
from tmas.data_prep.verification import VerificationRowSettings
from tmas.prompts import PromptsSetting
from tmas.settings import Paths, Settings
from tmas.training.rows import Source, Text


class Wanted(Settings):
    """Number of rows of each source in the training file. The defaults are the published numbers.

    The paper has no rows of the source ``verification``.
    """

    normal: NonNegativeInt = Field(default=2200, description="Rows with the bare problem in the training file.")
    experience: NonNegativeInt = Field(
        default=1600, description="Rows with rollouts and experience in the training file."
    )
    guideline: NonNegativeInt = Field(default=600, description="Rows with guidelines in the training file.")
    verification: NonNegativeInt = Field(
        default=0,
        description="Rows that ask for a verification of a recorded candidate in the training file. They come in pairs,"
        " so an odd number is rounded down.",
    )

    def by_source(self) -> dict[Source, int]:
        return {
            "normal": self.normal,
            "experience": self.experience,
            "guideline": self.guideline,
            "verification": self.verification,
        }


class BuildSettings(Settings):
    """All settings of ``tmas build``."""

    workspace: WorkspaceFolder = None
    problems: Path = Field(description="The filtered problems, as tmas filter writes them.")
    run: Path = Field(description="The teacher's run directory, made by tmas distill; rows and chats come from it.")
    output_dir: Path = Field(description="Folder for the row files, the data card and look.html.")
    tokenizer: str = Field(
        description="The policy's tokenizer: a folder or a hub name. estimate: count tokens by the number of bytes."
    )
    max_prompt_tokens: int = Field(
        ge=128,
        description="Longest prompt in tokens, chat template included; the same as data.max_prompt_length of tmas"
        " train.",
    )
    rows: Wanted = Field(default=Wanted(), description="Rows of each source in the training file.")
    per_problem: int = Field(
        default=3,
        ge=1,
        description="Maximum number of rows with memory from one problem, in addition to at most one normal row.",
    )
    iterations: tuple[int, ...] | None = Field(
        default=None,
        description="Iterations of the run whose prompts become rows with memory, such as [1,2,3]. null: all.",
    )
    validation_share: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the problems that are held out, and size of the validation file as a share of rows.",
    )
    seed: int = Field(default=0, description="Seed of all random choices.")
    prompts: PromptsSetting | None = Field(
        default=None,
        description="Folder with the prompts of the run; it must hold the same prompts as the run. null: those of the"
        " run.",
    )
    system_message: Text | None = Field(
        default=None,
        description="System message before the prompt of every RL row. null: none. tmas solve sends none, so a policy"
        " that is trained with one gets other prompts in tmas solve. Chats of the cold-start set are not changed.",
    )
    verification: VerificationRowSettings = Field(
        default=VerificationRowSettings(), description="The candidates of the verification rows."
    )
    sft: SFTDataSettings = Field(default=SFTDataSettings(), description="The cold-start data set.")
    chat_runs: Paths = Field(
        default=(), description="Further run directories of the teacher, of any method; they give chats only."
    )
    earlier: Paths = Field(
        default=(), description="Folders of the earlier steps; the data card shows their reports and removed rows."
    )
