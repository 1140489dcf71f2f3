"""The miniature without a server: a session in memory whose calls the rule-based teacher answers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, NamedTuple

from hypothesis import strategies as st

from recipes.miniature.language import answer, question
from recipes.miniature.task import LETTERS, ORDERS, RULES, Block, Blocks, Candidate, Split, Task
from recipes.miniature.teacher import Teacher
from tmas.agents.packing import Prompt
from tmas.answers.checker import AnswerChecker
from tmas.llm.thinking import split_thinking
from tmas.methods import METHODS
from tmas.miniature import POLICY
from tmas.miniature import PROMPTS as SHIPPED_PROMPTS
from tmas.prompts import Prompts
from tmas.records import CallKey, Problem, Reply, Trajectory, Usage
from tmas.run.session import keyed_hash

PROMPTS = Prompts()
SHIPPED = (
    *(f"model.path={POLICY}", f"prompts={SHIPPED_PROMPTS}"),
    *("method.agents.max_new_items=16", "method.agents.structured_outputs=off"),
    *("serving=vllm", "serving.args.max-num-seqs=64", "serving.args.enforce-eager=true", "serving.args.dtype=bfloat16"),
    *("+serving.env.VLLM_CPU_KVCACHE_SPACE='2'", "+serving.env.VLLM_CPU_NUM_OF_RESERVED_CPU='0'"),
)
"""Arguments in addition to ``experiment=miniature``: the shipped policy, on a vLLM server that the command starts."""

blocks = st.lists(
    st.builds(Block, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)),
    min_size=1,
    max_size=len(LETTERS),
).map(tuple)
"""The blocks of any problem, solvable or not."""


@st.composite
def problems_with_candidates(draw: st.DrawFn) -> tuple[Blocks, Candidate]:
    """Any blocks, and any candidate for them."""
    drawn = draw(blocks)
    orders = draw(st.lists(st.sampled_from([*ORDERS]), min_size=len(drawn), max_size=len(drawn)))
    return drawn, Candidate(draw(st.sampled_from([*RULES])), tuple(orders))


class Call(NamedTuple):
    """One call: its role, the prompt, and the replies as the teacher wrote them."""

    role: str
    prompt: str
    replies: list[str]


class TeacherSession:
    """Implements :class:`tmas.agents.base.Session` and the window of every role; ``calls`` records the calls in order.

    The call's key, which has the problem's id, and the number of the choice seed a reply. The order of the calls makes
    no difference.
    """

    stopped = None
    prompts = PROMPTS

    def __init__(self, problem_id: str, task: Task | None = None, **settings: float) -> None:
        self.problem_id, self.task, self.settings = problem_id, task or Task(), settings
        self.calls: list[Call] = []

    def shown_items(self, key: CallKey, prompt: Prompt) -> tuple[str, ...]:
        return prompt.shown

    def draw(self, name: str) -> float:
        return keyed_hash(0, self.problem_id, name) / 2**56

    def window(self, role: str) -> TeacherSession:
        return self

    def fits(self, prompt: str) -> bool:
        return True

    def count(self, text: str) -> int:
        return len(text) // 4

    async def decide(self, name: str, compute: Callable[[], Awaitable[Any]], output: type[Any]) -> Any:
        return await compute()

    async def share_allows(self, iteration: int, stalled: int) -> bool:
        return True

    async def ask(self, key: CallKey, prompt: Prompt, n: int = 1, output_schema: dict[str, Any] | None = None) -> Reply:
        draws = [random.Random(f"{key.model_dump_json()}/{choice}") for choice in range(n)]
        replies = [Teacher(self.task, draw, **self.settings).reply(prompt.content) for draw in draws]
        self.calls.append(Call(key.role, prompt.content, replies))
        return Reply(completions=tuple(split_thinking(reply, "") for reply in replies), usage=Usage(calls=1))


def miniature_problems(count: int, split: Split = "validation") -> list[Problem]:
    """The first problems of ``split``."""
    drawn = islice(Task().problems(split, 0), count)
    return [
        Problem(problem_id=f"{split}-{number}", question=question(given), answer=answer(gold))
        for number, (given, gold) in enumerate(drawn)
    ]


async def solve(problem: Problem, session: TeacherSession, name: str, **settings: Any) -> Trajectory:
    """Solve with the method ``name``. No worker compares answers, because those of the miniature are whole numbers."""
    method = METHODS[name]
    return await method(method.settings_type.model_validate({"name": name} | settings), AnswerChecker()).solve(
        problem, session
    )
