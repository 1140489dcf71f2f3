"""RSE, recycling search experience (arXiv 2601.21684): rollouts are distilled into a bank that guides later rollouts.

1. Iteration 0 samples the bare problem.
2. Each rollout is distilled independently, from its full reasoning and its answer and without any feedback, into two
   lists: verified propositions and critical pitfalls. JSON that cannot be parsed is requested again up to 5 times and
   then dropped.
3. Each list is merged with the previous bank. New statements come first, and longer before shorter ones. A
   statement that equals, is part of or nearly duplicates an earlier one in this order is merged into it. The bank has
   no size limit.
4. The next iteration samples the problem with the bank in the system message: first the pitfalls to avoid, then the
   propositions to verify before use.

Published: 32 rollouts per iteration, temperature 0.6, top-p 0.95, top-k 20; conf/method/rse.yaml sets the last three.
The other defaults are those of Table 1 of TMAS.

The prompts are rewritten in our own words. ``prompts=FOLDER`` with the files ``distill.jinja``, ``recycled.jinja`` and
``solution.jinja`` replaces them, for example by the originals; docs/prompts.md lists the variables and the form of a
reply.

Differences from the original:

- The project's own test finds near-duplicates (shared words, and equal numbers and symbols). The original tests
  whether the cosine similarity of sentence embeddings is above 0.8. The core has no embedding model, and "x = 2" must
  not be merged with "x = 3".
- In the bank, new statements come before old ones and longer before shorter ones. The original sorts each list
  alphabetically.
- The system message has only the bank and how to use it; the user message has the problem and the form of the answer.
  The original's system message has all instructions, and its user message only the problem.
- A completion is limited by the model's settings. The original limits each to 38,912 tokens
  (``model.sampling.max_tokens=38912``), with a context of 100,000 for the distillation
  (``model.roles.distill.context_length=100000``).
- A rollout that was cut short is a failure and is not distilled.
- The reasoning enters a prompt in this method only, because distilling it is the method. If the prompt is too long,
  first the reasoning is cut in the middle, then the solution. A bank that does not fit is shown without its least
  supported items.
- The last iteration is not distilled, because no later iteration would use the result.
- The candidates of the last iteration vote for the answer; the original does not say how it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.context import all_items, fewer_items
from tmas.agents.packing import Prompt, cut_middle
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.concurrency import gather_all, resolved
from tmas.memory.recycled import RecycledBank
from tmas.methods.base import Memory, Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Parsed, parse_json
from tmas.prompts.schemas import DistillOutput, output_schema
from tmas.records import Completion, Failure, Problem, Rollout, Solution, Trajectory


class RSESettings(MethodSettings, frozen=True):
    """Settings of RSE; defaults as in Table 1 of TMAS."""

    roles = ("solution", "distill")

    name: Literal["rse"] = Field(default="rse", description="the method")
    n_candidates: int = Field(default=8, ge=1, description="rollouts per iteration")
    max_iterations: int = Field(default=20, ge=1, description="maximum number of iterations")
    similarity: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="two items may be duplicates if the Jaccard similarity of their words is at least this"
        " (memory/similarity.py)",
    )
    agents: AgentSettings = Field(
        default=AgentSettings(parse_attempts=6), description="how agents are prompted and replies parsed"
    )
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote", scope="last"), description="how the final answer is selected"
    )


class RSE(Method[RSESettings]):
    """Samples, distils the samples into a bank, and samples again with the bank."""

    settings_type = RSESettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        recycler = Recycler(Team(problem, session, self.settings.agents))
        bank = RecycledBank(similarity=self.settings.similarity)
        rounds: list[Round] = []
        memories: list[Memory] = []
        while self.continues(session, t := len(rounds)):
            prompt = recycler.prompt(bank)
            found = await gather_all(self._rollout(recycler, t, i, prompt) for i in range(self.settings.n_candidates))
            rounds.append(tuple(f.rollout for f in found))
            bank, memory = _remember(bank, t, found)
            memories.append(memory)
            self.report(t, rounds[-1], lambda memory=memory: resolved(memory))
        return await self.trajectory(session, rounds, memories=memories)

    async def _rollout(self, recycler: Recycler, t: int, i: int, prompt: Prompt | Failure) -> _Found:
        rollout, reasoning = await recycler.sample(t, i, prompt)
        if isinstance(rollout.solution, Failure) or t + 1 == self.settings.max_iterations:
            return _Found(rollout)
        return _Found(rollout, await recycler.distilled(rollout.solution, reasoning))


class _Found(NamedTuple):
    """A rollout and what was distilled from it; None: it was not distilled."""

    rollout: Rollout
    distilled: Parsed[DistillOutput] | Failure | None = None


def _remember(bank: RecycledBank, t: int, found: Sequence[_Found]) -> tuple[RecycledBank, Memory]:
    """The bank after iteration ``t``, and the memory that the iteration's record holds."""
    parsed_by_index = {f.rollout.index: f.distilled for f in found if isinstance(f.distilled, Parsed)}
    failures = tuple(f.distilled for f in found if isinstance(f.distilled, Failure))
    change = None
    if parsed_by_index:
        bank, change = bank.evolve({index: parsed.record for index, parsed in parsed_by_index.items()}, t)
        unreadable = sum(parsed.dropped for parsed in parsed_by_index.values())
        repaired = any(parsed.repaired for parsed in parsed_by_index.values())
        change = change.model_copy(update={"unreadable": unreadable, "repaired": repaired})
    return bank, Memory(experiences=bank.items, experience_change=change, failures=failures)


class Recycler:
    """Samples with a bank, and distils samples."""

    def __init__(self, team: Team) -> None:
        self.team = team

    def prompt(self, bank: RecycledBank) -> Prompt | Failure:
        """The bare problem, with the bank in the system message."""
        packed = self.team.pack(
            "solution",
            lambda _: self.team.render("solution", attempts=[], experience="", guidelines=""),
            {"bank": all_items(bank)},
            [("bank", fewer_items(bank))],
            system=lambda texts: self.team.session.prompts.render("recycled", **texts),
        )
        if isinstance(packed, Failure):
            return packed
        in_prompt = frozenset(packed.system.split("\n"))
        lines = {item.item_id: line for item in bank.items if (line := f"- {item.statement}") in in_prompt}
        return packed.model_copy(update={"shown": tuple(lines), "lines": lines})

    async def sample(self, t: int, i: int, prompt: Prompt | Failure) -> tuple[Rollout, str | None]:
        """A candidate and its reasoning, which no record keeps."""
        mode = "exploit" if isinstance(prompt, Prompt) and prompt.system else "initial"

        def parse(completion: Completion) -> tuple[Solution, str | None]:
            return self.team.parse_solution(t, i, mode, completion), completion.reasoning

        key = self.team.key(t, "solution", i)
        [found] = await self.team.ask(key, prompt, parse)
        solution, reasoning = (found, None) if isinstance(found, Failure) else found
        shown = self.team.session.shown_items(key, prompt) if isinstance(prompt, Prompt) else ()
        return Rollout(iteration=t, index=i, mode=mode, solution=solution, shown=shown), reasoning

    async def distilled(self, solution: Solution, reasoning: str | None) -> Parsed[DistillOutput] | Failure:
        """The two lists of propositions and pitfalls, distilled from one rollout alone."""
        pieces = {"reasoning": reasoning or "", "solution": solution.text}
        prompt = self.team.pack(
            "distill",
            lambda texts: self.team.render("distill", **texts),
            pieces,
            [(name, cut_middle(text)) for name, text in pieces.items() if text],
        )
        schema = self.team.settings.sends_schema(solution.thinking)
        [found] = await self.team.ask(
            self.team.key(solution.iteration, "distill", solution.index),
            prompt,
            lambda c: parse_json(c.text, DistillOutput),
            schema=output_schema(DistillOutput) if schema else None,
            max_calls=self.team.settings.parse_attempts,
        )
        return found
