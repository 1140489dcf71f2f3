"""RSA, recursive self-aggregation (arXiv 2509.26626): a population of candidates whose subsets are aggregated.

1. Step 0 samples a population of N candidates from the bare problem.
2. Each later step writes N new candidates. For each, K distinct candidates are drawn at random from the population, and
   the model aggregates them: it reads the K candidates and writes one improved solution. With K = 1 it refines one.
3. The N new candidates are the population of the next step. The old ones are dropped.
4. After T steps, the first population included, the answer is a random member of the population or its majority vote.

Published: N = 16, K = 4, T = 10, temperature 1.0 and top-p 1.0; conf/method/rsa.yaml sets the last two. The defaults of
N and T are those of Table 1 of TMAS, as for the other baselines. The paper evaluates a random member, whose expected
accuracy is Pass@1 of the last iteration: ``selection.rule=random``. The default is the majority vote, which the paper
also names.

The prompts are rewritten in our own words. ``prompts=FOLDER`` with a file ``rsa.jinja`` (and ``solution.jinja`` for the
first population) replaces them, for example by the originals; docs/prompts.md lists the variables.

Differences from the original:

- The original aggregates reasoning chains. Here a candidate is the text after the thinking, because thinking never
  enters a prompt. For a model without separate thinking, this text is the whole chain.
- A candidate that was cut short is a failure and does not become a member of the population. With fewer
  than K members, all are aggregated; without any, the step works on the bare problem again.
- The original draws from one random stream. Here a draw is a function of the run's seed, the problem, the step and the
  candidate. The candidates of a prompt are in the order drawn, as in the original.
- The original assumes that all candidates fit. Here candidates that do not fit are left out, the longest first; the
  last one is cut in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from tmas.agents.base import Session, shuffled
from tmas.agents.packing import Prompt, cut_middle, replace_by
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all
from tmas.methods.base import Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.records import Failure, Problem, Rollout, Solution, Trajectory


class RSASettings(MethodSettings, frozen=True):
    """Settings of RSA; K as published, N and T as in Table 1 of TMAS."""

    roles = ("solution",)

    name: Literal["rsa"] = Field(default="rsa", description="the method")
    n_candidates: int = Field(default=8, ge=1, description="N: candidates of the population")
    n_aggregated: int = Field(default=4, ge=1, description="K: candidates of the population that one prompt aggregates")
    max_iterations: int = Field(default=20, ge=1, description="T: steps, the first population included")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote", scope="last"), description="how the final answer is selected"
    )


class RSA(Method[RSASettings]):
    """Aggregates random subsets of a population into the next population."""

    settings_type = RSASettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        team = Team(problem, session, self.settings.agents)
        rounds: list[Round] = []
        population: list[Rollout] = []
        while self.continues(session, t := len(rounds)):
            step = [self._candidate(team, t, i, population) for i in range(self.settings.n_candidates)]
            rounds.append(tuple(await gather_all(step)))
            self.report(t, rounds[-1])
            population = [rollout for rollout in rounds[-1] if isinstance(rollout.solution, Solution)]
        return await self.trajectory(session, rounds)

    async def _candidate(self, team: Team, t: int, i: int, population: Sequence[Rollout]) -> Rollout:
        """Candidate ``i`` of step ``t``: K members of the population aggregated, or a sample of the bare problem."""
        if not population:
            return await team.solution(t, i, "initial", team.solution_prompt())
        subset = shuffled(team.session, f"subset/{t}/{i}", population)[: self.settings.n_aggregated]
        parents = tuple((member.iteration, member.index) for member in subset)
        return await team.solution(t, i, "exploit", _aggregation_prompt(team, subset), parents)


def _aggregation_prompt(team: Team, subset: Sequence[Rollout]) -> Prompt | Failure:
    """The problem and the candidates of ``subset``, with the request to aggregate them."""
    solutions = [member.solution.text for member in subset if isinstance(member.solution, Solution)]
    pieces = {f"candidate {n}": text for n, text in enumerate(solutions, start=1)}
    *longest_first, shortest = sorted(pieces, key=lambda name: -len(pieces[name]))

    def prompt(texts: Mapping[str, str]) -> str:
        return team.render("rsa", candidates=[text for text in texts.values() if text])

    leave_out = [(name, replace_by("")) for name in longest_first]
    return team.pack("solution", prompt, pieces, [*leave_out, (shortest, cut_middle(pieces[shortest]))])
