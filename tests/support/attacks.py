"""Solutions that try to earn a bonus without the work, and honest ones that look like them.

Each comes with the verdict of a judge that is deceived as far as possible: it calls every item applied or the strategy
new, and quotes what the solution offers. ``python -m tests.support.attacks`` prints what each one earns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.support.rewards import (
    EXPERIENCE,
    FIRST_STEP,
    GUIDELINES,
    QUESTION,
    SECOND_STEP,
    SOLUTION,
    extra_info,
    novelty_verdict,
    settings,
    to_json,
)
from tmas.records import Experience
from tmas.rewards.component import Component
from tmas.rewards.correctness import Correctness
from tmas.rewards.scorer import RewardInput, Scorer
from tmas.rewards.settings import reward_settings
from tmas.testing.chat_server import ScriptedServer
from tmas.testing.judge import with_code

_SEEN: dict[str, Any] = {"created": 0, "last_seen": 0}


class Case(NamedTuple):
    """A solution and the verdict on it.

    ``quotes``: by item, for rows with an experience bank. ``novelty``: the verdict, for rows with guidelines.
    ``earns``: the bonus. ``why``: the reason of a bonus of 0.
    """

    name: str
    solution: str
    earns: float
    why: str = ""
    quotes: Mapping[str, str] = {}
    novelty: Mapping[str, Any] = {}
    question: str = QUESTION
    gold: str = "58"
    bank: Sequence[Experience] = EXPERIENCE
    attempt: str = ""


def conclusions(*statements: str) -> tuple[Experience, ...]:
    return tuple(
        Experience(item_id=f"E{n}", kind="conclusion", statement=text, **_SEEN) for n, text in enumerate(statements, 1)
    )


def filled(text: str) -> str:
    """``text`` with a filler after every two words."""
    fillers = ("well", "so", "indeed", "now", "clearly")
    words = text.split()
    pairs = [words[start : start + 2] for start in range(0, len(words), 2)]
    return " ".join(" ".join([*pair, fillers[n % len(fillers)]]) for n, pair in enumerate(pairs))


def renamed(text: str, letters: str = "xyt", to: str = "uvw") -> str:
    """``text`` with other letters for its variables."""
    found = "".join(dict(zip(letters, to, strict=True)).get(c, c) if _alone(text, n) else c for n, c in enumerate(text))
    return found.replace("xy", "uv")


def _alone(text: str, place: int) -> bool:
    around = text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
    return not any(c.isalpha() for c in around)


def _quoting(*steps: str, answer: str = "58") -> str:
    return f"{'. '.join(steps)}. The answer is \\boxed{{{answer}}}."


_PARAPHRASE = (
    "We recall from algebra that for any numbers $a^2 + b^2$ is the same as $(a + b)^2 - 2ab$",
    "Of course $p$ and $q$ are always the roots of the equation $s^2 - 10s + 21 = 0$",
)
_ARITHMETIC = "Next we note that $13 + 14 = 27$ and that $27 + 8 = 35$", "Moreover $6 + 11 = 17$ and so $17 + 17 = 34$"
_ARITHMETIC_HERE = (
    "Next we note that $10 + 21 = 31$ and that $31 - 21 = 10$",
    "Moreover $21 - 10 = 11$ and so $58 - 11 = 47$ holds",
)
_NONSENSE = (
    r"Hence $\alpha \in \beta \Rightarrow \gamma = \delta$ in the sense of $\zeta \subset \eta$",
    r"Therefore $\lambda = \mu \equiv \nu$ and $\rho \Leftrightarrow \sigma \in \tau$ by duality",
)
_NONSENSE_HERE = r"Hence $x \in y \Rightarrow x = \delta$ in the sense of $y \subset \eta$", _NONSENSE[1] + " of $x$"
_DECORATION = (
    "By the symmetry $x = 5 + d$ and $y = 5 - d$ we may also write $d = (x - y)/2$",
    "and since $x - y = 2d$ the choice of $d > 0$ or $d < 0$ only exchanges $x$ and $y$",
)


def _experience(name: str, steps: tuple[str, str], earns: float, why: str = "", **changes: Any) -> Case:
    return Case(name, _quoting(*steps), earns, why, {"E1": steps[0], "E3": steps[1]}, **changes)


def _novelty(what: str, steps: tuple[str, str], earns: float, why: str = "", **verdict: Any) -> Case:
    return Case(what, _quoting(FIRST_STEP, *steps), earns, why, novelty=novelty_verdict(steps=steps, **verdict))


ATTACKS = (
    _experience("the bank in other letters and words", _PARAPHRASE, 0.0, "not_shown"),
    _experience("true arithmetic without any relation to the problem", _ARITHMETIC, 0.0, "not_shown"),
    _experience("true arithmetic with numbers of the problem", _ARITHMETIC_HERE, 1.0),
    _experience("symbols without a meaning", _NONSENSE, 0.0, "not_shown"),
    _experience("symbols without a meaning, with letters of the problem", _NONSENSE_HERE, 1.0),
    _experience(
        "an earlier attempt with a filler every two words",
        (filled(FIRST_STEP), filled(SECOND_STEP)),
        0.0,
        "not_shown",
        attempt=SOLUTION,
    ),
    _experience(
        "an earlier attempt in other letters",
        (renamed(FIRST_STEP), renamed(SECOND_STEP)),
        0.0,
        "not_shown",
        attempt=SOLUTION,
    ),
    _experience(
        "an earlier attempt in other letters, with a filler every two words",
        (filled(renamed(FIRST_STEP)), filled(renamed(SECOND_STEP))),
        0.0,
        "not_shown",
        attempt=SOLUTION,
    ),
    _novelty("a known method and two decorative lines", _DECORATION, 1.0, name="Deviation from the mean"),
    _novelty("a known method and two lines of unrelated arithmetic", _ARITHMETIC, 0.0, "not_carried_out"),
    _novelty(
        "a strategy of the bank under a new name, in other letters",
        _DECORATION,
        0.0,
        "known",
        name="Root extraction",
        description="Find p and q as the roots of a quadratic polynomial.",
    ),
    _novelty(
        "a strategy of the bank in other words",
        _DECORATION,
        1.0,
        name="Root extraction",
        description="Factor the quadratic whose zeros are both unknowns.",
    ),
)

_CUBES = conclusions("For all numbers a and b: a^3 + b^3 = (a + b)^3 - 3ab(a + b).")
_PRIMES = conclusions("If p is prime and p divides ab then p divides a or p divides b.")
_RECURRENCE = conclusions("The recurrence has the characteristic equation r^2 - r - 2 = 0.")
_TRIANGLES = conclusions("The triangles ABC and ADE are similar, so AB/AD = BC/DE.")
_SQUARES = (
    "By the finding $x^2 + y^2 = (x+y)^2 - 2xy$ we get $x^2 + y^2 = 10^2 - 2 \\cdot 21 = 100 - 42 = 58$",
    "As $x$ and $y$ are the roots of $t^2 - 10t + 21 = 0$, they are $5 \\pm \\sqrt{25 - 21}$, which is 3 and 7",
)
_CUBE_STEP = "As $p^3 + q^3 = (p + q)^3 - 3pq(p + q)$, we get $p^3 + q^3 = 125 - 45 = 80$"
_PRIME_STEP = (
    "Since 7 is prime and divides $n(n + 1)$, 7 divides $n$ or $n + 1$, so $n \\equiv 0$ or $n \\equiv 6$ mod 7"
)
_RECURRENCE_STEP = "The equation $r^2 - r - 2 = 0$ has the roots $r = 2$ and $r = -1$, so $a_n = A 2^n + B (-1)^n$"
_RECURRENCE_END = "From $a_0 = 2$ and $a_1 = 1$ we get $A + B = 2$ and $2A - B = 1$, so $A = B = 1$"
_TRIANGLE_STEP = "By similarity $AB/AD = BC/DE$, that is $6/4 = BC/2$, so $BC = 3$"
_LETTERS = (
    "Put $s = x + y = 10$ and $p = xy = 21$; then the wanted sum is $s^2 - 2p = 100 - 42 = 58$",
    "The polynomial $z^2 - sz + p = z^2 - 10z + 21$ has the roots 3 and 7, and $9 + 49 = 58$",
)

HONEST = (
    Case("steps of their own", SOLUTION, 1.0, quotes={"E1": FIRST_STEP, "E3": SECOND_STEP}),
    _experience("items stated again and applied", _SQUARES, 1.0),
    _experience("new letters", _LETTERS, 1.0),
    Case(
        "a general identity, applied to the letters of the problem",
        _quoting(_CUBE_STEP, answer="80"),
        1.0,
        quotes={"E1": _CUBE_STEP},
        question="Numbers p and q satisfy p + q = 5 and pq = 3. Find p^3 + q^3.",
        gold="80",
        bank=_CUBES,
    ),
    Case(
        "a general lemma, applied to a number",
        _quoting(_PRIME_STEP, answer="3"),
        1.0,
        quotes={"E1": _PRIME_STEP},
        question="How many n from 1 to 13 are there such that 7 divides n(n + 1)?",
        gold="3",
        bank=_PRIMES,
    ),
    Case(
        "an equation of the bank, solved",
        _quoting(_RECURRENCE_STEP, _RECURRENCE_END, answer="31"),
        1.0,
        quotes={"E1": _RECURRENCE_STEP},
        question="Let a_0 = 2, a_1 = 1 and a_{n+2} = a_{n+1} + 2a_n. Find a_5.",
        gold="31",
        bank=_RECURRENCE,
    ),
    Case(
        "geometry with names of points",
        _quoting(_TRIANGLE_STEP, answer="3"),
        1.0,
        quotes={"E1": _TRIANGLE_STEP},
        question="In triangle ABC, D lies on AB and E on AC with DE parallel to BC, AB = 6, AD = 4, DE = 2. Find BC.",
        gold="3",
        bank=_TRIANGLES,
    ),
    _experience(
        "a step of an earlier attempt, taken further",
        (
            "As before $(x+y)^2 = 100$ and $2xy = 42$, and this time $x^2 + y^2 = 100 - 42 = 58$, not $100 + 42 = 142$",
            _SQUARES[1],
        ),
        1.0,
        attempt="Squaring gives $(x+y)^2 = 100$ and $2xy = 42$, so $x^2 + y^2 = 100 + 42 = 142$. \\boxed{142}",
    ),
    Case("a new strategy", SOLUTION, 1.0, novelty=novelty_verdict()),
)


async def earned(case: Case) -> Component:
    """The bonus of a case, whose answer is right."""
    used = [{"id": item, "use": "applied", "correct": True, "quote": quote} for item, quote in case.quotes.items()]
    verdict = case.novelty or {"items": used, "repeated": []}
    info = extra_info(
        "guideline" if case.novelty else "experience",
        question=case.question,
        prompt=f"{case.question}\n{case.attempt}",
        experience=to_json([] if case.novelty else case.bank),
        guidelines=to_json(GUIDELINES if case.novelty else []),
    )
    right = Correctness(state="scored", value=1.0, outcome="answered")
    async with (
        ScriptedServer(lambda body: with_code(body, verdict)) as server,
        Scorer(reward_settings(settings(server.base_url))) as scorer,
    ):
        return await scorer._bonus(RewardInput.model_validate(info), case.solution, right)


async def main() -> None:
    for case in (*ATTACKS, *HONEST):
        found = await earned(case)
        print(f"{found.value:.1f} {found.state} {found.why or '-':16} {case.name}")


if __name__ == "__main__":
    asyncio.run(main())
