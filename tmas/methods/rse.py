"""RSE, recycling search experience (arXiv 2601.21684): rollouts are distilled into a bank that guides the next ones.

1. Iteration 0 samples the bare problem.
2. Each rollout is distilled on its own, from its full reasoning and its answer, strictly neutral and without any
   feedback, into two lists: verified propositions and critical pitfalls. JSON that cannot be read is asked for again,
   up to 5 times, and then dropped.
3. Each list is merged with the previous bank: of equal statements, substrings and near-duplicates one is kept, the new
   before the old and the longer before the shorter. The bank has no limit.
4. The next iteration samples the problem with the bank in the system message: pitfalls first, to be avoided, then
   propositions, to be verified before they are used.

Published: 32 rollouts an iteration, temperature 0.6, top-p 0.95, top-k 20 (the last three are set by
conf/method/rse.yaml). The defaults are those of Table 1 of TMAS.

Different here, and why:

- Near-duplicates are found by the project's own test (words shared, and everything decisive equal) instead of a cosine
  above 0.8 of sentence embeddings: the core has no embedding model, and one must not merge "x = 2" with "x = 3".
- A rollout that was cut short is a failure, and is not distilled.
- The reasoning enters a prompt here, and only here: distilling it is the method. Too long for the context, it loses
  its middle first, then the solution does; and a bank too long for it is shown without its least supported items.
- The last iteration is not distilled, since nothing would be made of it.
- The last iteration's candidates vote for the answer, on which the original leaves nothing said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tmas.agents.base import Session
from tmas.agents.context import all_items, fewer_items
from tmas.agents.packing import Prompt, cut_middle
from tmas.agents.team import ReplySettings, Solver
from tmas.concurrency import gather_all
from tmas.memory.recycled import RecycledBank
from tmas.methods.base import Method, Round, Settings
from tmas.methods.selection import SelectionSettings
from tmas.prompts.parsing import Parsed, parse_json
from tmas.prompts.schemas import DistillOutput, output_schema
from tmas.records import Completion, Failure, Problem, Rollout, Solution, Trajectory


class RSESettings(Settings, frozen=True):
    """Defaults as in Table 1 of TMAS."""

    roles = ("solution", "distill")

    name: Literal["rse"] = "rse"
    n_candidates: int = Field(default=8, ge=1, description="rollouts of an iteration")
    max_iterations: int = Field(default=20, ge=1)
    similarity: float = Field(
        default=0.7, ge=0, le=1, description="Jaccard similarity from which two items may be one (memory/similarity.py)"
    )
    agents: ReplySettings = ReplySettings(parse_attempts=6)
    selection: SelectionSettings = SelectionSettings(rule="vote", scope="last")


class RSE(Method[RSESettings]):
    """Samples, distils, and samples again with what was distilled."""

    settings_type = RSESettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        recycler = Recycler(problem, session, self.settings.agents)
        bank = RecycledBank(similarity=self.settings.similarity)
        rounds: list[Round] = []
        memory: list[dict[str, Any]] = []
        while not self.done(session, rounds):
            t, prompt = len(rounds), recycler.prompt(bank)
            found = await gather_all(self._rollout(recycler, t, i, prompt) for i in range(self.settings.n_candidates))
            rounds.append(tuple(f.rollout for f in found))
            bank, remembered = _remember(bank, t, found)
            memory.append(remembered)
        return await self.trajectory(session, rounds, memory=memory)

    async def _rollout(self, recycler: Recycler, t: int, i: int, prompt: Prompt | Failure) -> _Found:
        rollout, reasoning = await recycler.sample(t, i, prompt)
        if isinstance(rollout.solution, Failure) or t + 1 == self.settings.max_iterations:
            return _Found(rollout)
        return _Found(rollout, await recycler.distilled(rollout.solution, reasoning))


class _Found(NamedTuple):
    """A rollout, and what was distilled from it."""

    rollout: Rollout
    distilled: Parsed[DistillOutput] | Failure | None = None


def _remember(bank: RecycledBank, t: int, found: Sequence[_Found]) -> tuple[RecycledBank, dict[str, Any]]:
    """The bank after iteration ``t``, and what the iteration's record says of it."""
    read = {f.rollout.index: f.distilled for f in found if isinstance(f.distilled, Parsed)}
    failures = tuple(f.distilled for f in found if isinstance(f.distilled, Failure))
    change = None
    if read:
        bank, change = bank.evolve({index: parsed.record for index, parsed in read.items()}, t)
        left_out, repaired = sum(p.dropped for p in read.values()), any(p.repaired for p in read.values())
        change = change.model_copy(update={"unreadable": left_out, "repaired": repaired})
    return bank, {"experiences": bank.items, "experience_change": change, "failures": failures}


class Recycler(Solver[ReplySettings]):
    """Samples with a bank, and distils samples."""

    def prompt(self, bank: RecycledBank) -> Prompt | Failure:
        """The bare problem, behind the bank in the system message."""
        return self.pack(
            "solution",
            lambda _: self.render("solution", attempts=[], experience="", guidelines=""),
            {"bank": all_items(bank)},
            [("bank", fewer_items(bank))],
            system=lambda texts: self.session.prompts.render("recycled", **texts),
        )

    async def sample(self, t: int, i: int, prompt: Prompt | Failure) -> tuple[Rollout, str | None]:
        """A candidate, and its reasoning, which no record holds."""
        mode = "exploit" if isinstance(prompt, Prompt) and prompt.system else "initial"

        def parse(completion: Completion) -> tuple[Solution, str | None]:
            return self.candidate(t, i, mode, completion), completion.reasoning

        [found] = await self.ask(self.key(t, "solution", i), prompt, parse)
        solution, reasoning = (found, None) if isinstance(found, Failure) else found
        return Rollout(iteration=t, index=i, mode=mode, solution=solution), reasoning

    async def distilled(self, solution: Solution, reasoning: str | None) -> Parsed[DistillOutput] | Failure:
        """The two lists, from one rollout alone."""
        pieces = {"reasoning": reasoning or "", "solution": solution.text}
        prompt = self.pack(
            "distill",
            lambda texts: self.render("distill", **texts),
            pieces,
            [(name, cut_middle(text)) for name, text in pieces.items() if text],
        )
        schema = self.settings.takes_schema(solution.thinking)
        [found] = await self.ask(
            self.key(solution.iteration, "distill", solution.index),
            prompt,
            lambda c: parse_json(c.text, DistillOutput),
            schema=output_schema(DistillOutput) if schema else None,
            attempts=self.settings.parse_attempts,
        )
        return found
