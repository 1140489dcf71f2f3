"""PaCoRe (arXiv 2601.05593): parallel coordinated reasoning, in rounds of parallel responses.

1. Round 0: the first width of responses to the bare problem.
2. The responses of a round are compacted: what follows the thinking, empty ones dropped.
3. Sorted by length and shuffled, they are the numbered references of the next round, which is asked for a
   comprehensive solution of its own. All of a round see the same references.
4. The last round's response is the answer. Published widths: 4, 1 (low); 16, 1 (medium); 32, 4, 1 (high).

Different here, and why:

- Table 1 of TMAS runs it for 20 iterations and reports Pass@1 over 8 candidates: the default is that. The last of
  ``widths`` holds for all later rounds, so that the published settings are ``widths=[32, 4, 1] max_iterations=3``.
  Where the last round has more than one response, their majority is the answer.
- The original shuffles by one seed for all problems; here the seed is the run's, and the draw is keyed.
- A response that was cut short is a failure and no reference: what it has is unfinished thought, which never enters a
  prompt here. The original passes it on.
- The original cannot be too long for its context. Here references are left out then, the longest first, and the last
  one loses its middle.
- A round without any reference to show works on the bare problem again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tmas.agents.base import Session, shuffled
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.agents.team import Solver, SolverSettings
from tmas.concurrency import gather_all
from tmas.methods.base import Method, Round, Settings
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Problem, Solution, Trajectory


class PaCoReSettings(Settings, frozen=True):
    """Defaults as in Table 1 of TMAS."""

    roles = ("solution",)

    name: Literal["pacore"] = "pacore"
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(8,), min_length=1, description="responses in each round; the last holds for all later rounds"
    )
    max_iterations: int = Field(default=20, ge=1, description="rounds in all")
    agents: SolverSettings = SolverSettings()
    selection: SelectionSettings = SelectionSettings(rule="vote", scope="last")


class PaCoRe(Method[PaCoReSettings]):
    """Answers in parallel, reads all answers, and answers again."""

    settings_type = PaCoReSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        solver = Solver(problem, session, self.settings.agents)
        rounds: list[Round] = []
        references: list[str] = []
        while not self.done(session, rounds):
            rounds.append(await self._round(solver, len(rounds), references))
            references = _compacted(session, len(rounds), rounds[-1])
        return await self.trajectory(session, rounds)

    async def _round(self, solver: Solver[SolverSettings], t: int, references: Sequence[str]) -> Round:
        prompt = _synthesis_prompt(solver, references) if references else solver.bare_prompt()
        mode = "exploit" if references else "initial"
        width = self.settings.widths[min(t, len(self.settings.widths) - 1)]
        return tuple(await gather_all(solver.solution(t, i, mode, prompt) for i in range(width)))


def _compacted(session: Session, t: int, responses: Round) -> list[str]:
    """The references of round ``t``."""
    texts = [r.solution.text for r in responses if isinstance(r.solution, Solution)]
    return shuffled(session, f"references/{t}", sorted(texts, key=len))


def _synthesis_prompt(solver: Solver[SolverSettings], references: Sequence[str]) -> Prompt | Failure:
    pieces = {f"reference {i}": text for i, text in enumerate(references, start=1)}
    *longest_first, shortest = sorted(pieces, key=lambda name: -len(pieces[name]))

    def prompt(texts: Mapping[str, str]) -> str:
        return solver.render("pacore", references=[text for text in texts.values() if text])

    leave_out = [(name, replace_by("")) for name in longest_first]
    return solver.pack("solution", prompt, pieces, [*leave_out, (shortest, cut_middle(pieces[shortest]))])
