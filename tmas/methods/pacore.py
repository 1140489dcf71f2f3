"""PaCoRe (arXiv 2601.05593): parallel coordinated reasoning, in rounds of parallel responses.

1. Round 0 samples ``widths[0]`` responses to the bare problem.
2. The responses of a round are compacted: only the text after the thinking is kept, and empty texts are dropped.
3. They are sorted by length, shuffled and numbered. The next round sees them as references and writes comprehensive
   solutions of its own. All responses of a round see the same references.
4. The response of the last round is the answer. Published widths: 4, 1 (low); 16, 1 (medium); 32, 4, 1 (high).

The prompts are rewritten in our own words. ``prompts=FOLDER`` with a file ``pacore.jinja`` (and ``solution.jinja`` for
the first round) replaces them, for example by the originals; docs/prompts.md lists the variables.

Differences from the original:

- The defaults are those of Table 1 of TMAS: 20 rounds of 8 responses, reported as Pass@1. The last of ``widths``
  applies to all later rounds, so the published high setting is ``widths=[32, 4, 1] max_iterations=3``. If the last
  round has more than one response, the answer is their majority vote.
- The prompt says that the references may be wrong. The original does not.
- The original shuffles with one seed for all problems. Here the draw is a function of the run's seed and the problem.
- A response that was cut short is a failure and not a reference, because unfinished thinking never enters a prompt
  here. The original passes it on.
- The original assumes that all references fit. Here references that do not fit are left out, the longest first; the
  last one is cut in the middle.
- A round that has no reference works on the bare problem again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tmas.agents.base import Session, shuffled
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Problem, Solution, Trajectory


class PaCoReSettings(MethodSettings, frozen=True):
    """Settings of PaCoRe; defaults as in Table 1 of TMAS."""

    roles = ("solution",)

    name: Literal["pacore"] = Field(default="pacore", description="the method")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(8,), min_length=1, description="responses in each round; the last number applies to all later rounds"
    )
    max_iterations: int = Field(default=20, ge=1, description="maximum number of rounds")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote", scope="last"), description="how the final answer is selected"
    )


class PaCoRe(Method[PaCoReSettings]):
    """Answers in parallel, reads all answers, and answers again."""

    settings_type = PaCoReSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        team = Team(problem, session, self.settings.agents)
        rounds: list[Round] = []
        references: list[str] = []
        while self.continues(session, t := len(rounds)):
            rounds.append(await self._round(team, t, references))
            self.report(t, rounds[-1])
            references = _compacted(session, len(rounds), rounds[-1])
        return await self.trajectory(session, rounds)

    async def _round(self, team: Team, t: int, references: Sequence[str]) -> Round:
        prompt = _synthesis_prompt(team, references) if references else team.solution_prompt()
        mode = "exploit" if references else "initial"
        width = self.settings.widths[min(t, len(self.settings.widths) - 1)]
        return tuple(await gather_all(team.solution(t, i, mode, prompt) for i in range(width)))


def _compacted(session: Session, t: int, responses: Round) -> list[str]:
    """The references of round ``t``, made from the responses of the round before."""
    texts = [r.solution.text for r in responses if isinstance(r.solution, Solution)]
    return shuffled(session, f"references/{t}", sorted(texts, key=len))


def _synthesis_prompt(team: Team, references: Sequence[str]) -> Prompt | Failure:
    pieces = {f"reference {i}": text for i, text in enumerate(references, start=1)}
    *longest_first, shortest = sorted(pieces, key=lambda name: -len(pieces[name]))

    def prompt(texts: Mapping[str, str]) -> str:
        return team.render("pacore", references=[text for text in texts.values() if text])

    leave_out = [(name, replace_by("")) for name in longest_first]
    return team.pack("solution", prompt, pieces, [*leave_out, (shortest, cut_middle(pieces[shortest]))])
