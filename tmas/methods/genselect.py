"""GenSelect, a generative best of N (arXiv 2504.16891, section 4; arXiv 2507.17797): the model selects by comparing.

1. The model samples N candidates from the bare problem.
2. A comparison shows up to n candidates in one prompt, and the model names the index of the best one.
3. A vote has a random order of the candidates. If there are more than n, the vote is a knockout tournament: groups of
   nearly equal size are compared, and the winners are compared again until one is left. With ``arrangement=subset`` a
   vote compares n randomly drawn candidates, once.
4. The answer is the majority of the votes' winners.

Published: the first paper has N = 64, subsets of n = 16 and 64 votes in its tables (8 votes in a figure), temperature
0.6 and top-p 0.95; conf/method/genselect.yaml sets the last two. It shows summaries: for each solution the model writes
4 of at most 2048 tokens, summaries with another answer are dropped, and the longest is kept (``shown=summary``). The
second paper compares whole solutions without their thinking, which is the default here. We know its tournaments and
its 8 votes only from a public description.

The prompts are rewritten in our own words. ``prompts=FOLDER`` with the files ``genselect.jinja`` and
``genselect_summary.jinja`` replaces them (docs/prompts.md), for example by the originals. The reply must end with
"Judgment:" and an index from 0, as in the original.

Differences from the originals, and our choices where they are silent:

- The first paper fine-tunes the model for comparisons. Here any model compares, as in the second paper.
- A candidate that was cut short is a failure and is not compared. Neither is one without an answer, if others have one.
- If a prompt of n candidates does not fit the context, n is halved for that round of the tournament. If two candidates
  do not fit, both are cut in the middle to the same length.
- A reply without an index is retried, ``parse_attempts`` calls in all. A comparison that still fails is
  recorded as a failure, and a random candidate of its group advances, as in the original's code. A vote whose last
  comparison failed does not count; the original counts the random candidate. Without any vote, ``selection`` decides.
- Of equally frequent answers, the one whose candidate won more votes is selected, then the one sampled first.
- If no summary has the candidate's answer, the candidate is shown whole. The first paper discards it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from tmas.agents.base import Session, shuffled
from tmas.agents.packing import Prompt, Step, cut_middle, replace_by
from tmas.agents.settings import AgentSettings
from tmas.agents.team import Team
from tmas.answers.normalize import normalise
from tmas.concurrency import gather_all, resolved
from tmas.methods.base import Memory, Method, MethodSettings, Round
from tmas.methods.selection import SelectionSettings, select_and_record
from tmas.prompts.parsing import Unparsable
from tmas.records import Failure, Problem, Rollout, Selection, Solution, Trajectory

_JUDGMENT = re.compile(r"\bjudge?ment\b\W*(?:(?:boxed|text|solution|index|idx)\W*)*(\d+)", re.IGNORECASE)
_MIN_CUT_LENGTH = 200
"""Solutions are only cut to lengths above this, in characters."""


class GenSelectSettings(MethodSettings, frozen=True):
    """Settings of GenSelect; N and n as published."""

    roles = ("solution", "summary", "comparison")

    name: Literal["genselect"] = Field(default="genselect", description="the method")
    n_candidates: int = Field(default=64, ge=1, description="N: samples")
    n_compared: int = Field(default=16, ge=2, description="n: maximum number of candidates that one prompt compares")
    n_votes: int = Field(default=8, ge=1, description="votes: each compares the candidates in an order of its own")
    arrangement: Literal["tournament", "subset"] = Field(
        default="tournament",
        description="tournament: a vote compares all candidates, in several rounds if there are more than n_compared;"
        " subset: a vote compares n_compared randomly drawn candidates, once",
    )
    shown: Literal["solution", "summary"] = Field(
        default="solution",
        description="what a comparison shows of a candidate. solution: its whole text; summary: a summary by the model",
    )
    n_summaries: int = Field(
        default=4, ge=1, description="with shown=summary: summaries of each candidate, of which the longest is used"
    )
    max_iterations: Literal[1] = Field(default=1, description="always 1: samples are drawn once")
    agents: AgentSettings = Field(default=AgentSettings(), description="how agents are prompted and replies parsed")
    selection: SelectionSettings = Field(
        default=SelectionSettings(rule="vote"), description="how the final answer is selected if no vote succeeds"
    )


class GenSelect(Method[GenSelectSettings]):
    """Samples once, and selects by comparisons."""

    settings_type = GenSelectSettings

    async def solve(self, problem: Problem, session: Session) -> Trajectory:
        s = self.settings
        team = Team(problem, session, s.agents)
        prompt = team.solution_prompt()
        candidates = tuple(await gather_all(team.solution(0, i, "initial", prompt) for i in range(s.n_candidates)))
        selector = Selector(team, s, _comparable(candidates))
        await selector.summarise()
        votes = await gather_all(selector.vote(v) for v in range(s.n_votes))
        memory = Memory(failures=(*selector.failures, *(f for vote in votes for f in vote.failures)))
        self.report(0, candidates, lambda: resolved(memory))
        chosen = await self._elected(session, [vote.winner for vote in votes if vote.winner])
        return await self.trajectory(session, [candidates], memories=[memory], chosen=chosen)

    async def _elected(self, session: Session, winners: Sequence[Rollout]) -> Selection | None:
        """The majority of the winners; None if there is none. Each winner without an answer (a proof) counts alone."""
        wins = Counter(winner.index for winner in winners)
        by_wins = sorted(winners, key=lambda winner: (-wins[winner.index], winner.index))
        chosen = await select_and_record(session, [by_wins], SelectionSettings(rule="vote"), self.checker)
        if chosen is None:
            return None
        votes = wins[chosen.candidate] if chosen.answer is None else chosen.votes
        return chosen.model_copy(update={"votes": votes, "rule": "genselect"})


class Vote(NamedTuple):
    """The outcome of a vote, with all its failures.

    ``winner``: None if the last comparison failed or there was no candidate.
    """

    winner: Rollout | None
    failures: tuple[Failure, ...] = ()


class Selector:
    """Compares ``candidates``, all of which have a solution."""

    def __init__(self, team: Team, settings: GenSelectSettings, candidates: Sequence[Rollout]) -> None:
        self.team, self.settings, self.candidates = team, settings, candidates
        self.texts = {c.index: c.solution.text for c in candidates if isinstance(c.solution, Solution)}
        self.failures: list[Failure] = []

    async def summarise(self) -> None:
        """Replace the text of each candidate by a summary, if the settings say so. Keeps failures of summaries."""
        if self.settings.shown == "solution":
            return
        written = await gather_all(self._summaries(candidate) for candidate in self.candidates)
        for candidate, summaries in zip(self.candidates, written, strict=True):
            self.failures += [summary for summary in summaries if isinstance(summary, Failure)]
            faithful = [
                s.text for s in summaries if isinstance(s, Solution) and _states_answer(s.answer, candidate.answer)
            ]
            self.texts[candidate.index] = max(faithful, key=len, default=self.texts[candidate.index])

    async def _summaries(self, candidate: Rollout) -> list[Solution | Failure]:
        text = self.texts[candidate.index]
        words = self.settings.agents.summary_words
        prompt = self.team.pack(
            "summary",
            lambda texts: self.team.render("genselect_summary", words=words, **texts),
            {"solution": text},
            [("solution", cut_middle(text))],
        )
        return await self.team.ask(
            self.team.key(0, "summary", candidate.index),
            prompt,
            lambda completion: self.team.parse_solution(0, candidate.index, "initial", completion),
            n=self.settings.n_summaries,
            max_calls=self.settings.agents.parse_attempts,
        )

    async def vote(self, v: int) -> Vote:
        """Hold vote ``v``: a tournament of all candidates, or of a random subset, in an order drawn for this vote."""
        order = shuffled(self.team.session, f"vote/{v}", self.candidates)
        if self.settings.arrangement == "subset":
            order = order[: self.settings.n_compared]
        failures: list[Failure] = []
        first_index = v * len(self.candidates)  # a vote makes fewer comparisons than there are candidates
        decided = bool(order)
        while len(order) > 1:
            groups = self._groups(order)
            found = await gather_all(self._best(first_index + g, *group) for g, group in enumerate(groups))
            failures += [failure for _, failure in found if failure]
            order = [winner for winner, _ in found]
            first_index += sum(prompt is not None for _, prompt in groups)
            decided = found[-1][1] is None
        return Vote(order[0] if decided else None, tuple(failures))

    def _groups(self, order: Sequence[Rollout]) -> list[tuple[Sequence[Rollout], Prompt | Failure | None]]:
        """Groups of nearly equal size, at most ``n_compared`` or as many as fit, and their prompts.

        The last groups may be single candidates, which are not compared (None).
        """
        most = self.settings.n_compared
        while True:
            count = -(-len(order) // most)
            groups = [order[g::count] for g in range(count)]
            prompts = [self._prompt(group, may_cut=most == 2) if len(group) > 1 else None for group in groups]
            if most == 2 or not any(isinstance(prompt, Failure) for prompt in prompts):
                return list(zip(groups, prompts, strict=True))
            most = max(2, most // 2)

    def _prompt(self, group: Sequence[Rollout], may_cut: bool) -> Prompt | Failure:
        pieces = {f"solution {candidate.index}": self.texts[candidate.index] for candidate in group}

        def prompt(texts: Mapping[str, str]) -> str:
            return self.team.render("genselect", solutions=list(texts.values()))

        return self.team.pack("comparison", prompt, pieces, _equal_cuts(pieces) if may_cut else ())

    async def _best(
        self, index: int, group: Sequence[Rollout], prompt: Prompt | Failure | None
    ) -> tuple[Rollout, Failure | None]:
        """The best candidate of ``group``. If the comparison fails: a random one, and the failure."""
        if prompt is None:
            return group[0], None
        [found] = await self.team.ask(
            self.team.key(0, "comparison", index),
            prompt,
            lambda completion: chosen_index(completion.text, len(group)),
            max_calls=self.settings.agents.parse_attempts,
        )
        if isinstance(found, Failure):
            return group[int(self.team.session.draw(f"comparison/{index}") * len(group))], found
        return group[found], None


def chosen_index(text: str, count: int) -> int:
    """The index after the last "Judgment:". Raises Unparsable if there is none, or if it is not below ``count``."""
    *_, last = ("", *_JUDGMENT.findall(text))
    if not last:
        raise Unparsable('a comparison without "Judgment:" and an index')
    if int(last) >= count:
        raise Unparsable(f"the comparison selects solution {last}, but the indices are 0 to {count - 1}")
    return int(last)


def _equal_cuts(pieces: Mapping[str, str]) -> list[list[Step]]:
    """Steps that cut all pieces to the same length, which is halved until they fit. So no piece has an advantage."""
    steps: list[list[Step]] = []
    length = max(map(len, pieces.values())) // 2
    while length > _MIN_CUT_LENGTH:
        cuts: list[Step] = []
        for name, text in pieces.items():
            if len(text) > length:
                shorter = cut_middle(text)(lambda shortened, most=length: len(shortened) <= most)
                cuts.append((name, replace_by(shorter)))
        steps.append(cuts)
        length //= 2
    return steps


def _comparable(candidates: Round) -> list[Rollout]:
    solved = [candidate for candidate in candidates if isinstance(candidate.solution, Solution)]
    return [candidate for candidate in solved if candidate.answer is not None] or solved


def _states_answer(stated: str | None, answer: str | None) -> bool:
    """Whether a summary that states ``stated`` has its solution's ``answer``; always true if the solution has none."""
    return answer is None or (stated is not None and normalise(stated) == normalise(answer))
