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
    bank: Sequence[Experience] = EXPERIENCE
    attempt: str = ""


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

_SQUARES = (
    "By the finding $x^2 + y^2 = (x+y)^2 - 2xy$ we get $x^2 + y^2 = 10^2 - 2 \\cdot 21 = 100 - 42 = 58$",
    "As $x$ and $y$ are the roots of $t^2 - 10t + 21 = 0$, they are $5 \\pm \\sqrt{25 - 21}$, which is 3 and 7",
)
_LETTERS = (
    "Put $s = x + y = 10$ and $p = xy = 21$; then the wanted sum is $s^2 - 2p = 100 - 42 = 58$",
    "The polynomial $z^2 - sz + p = z^2 - 10z + 21$ has the roots 3 and 7, and $9 + 49 = 58$",
)
_FURTHER = (
    "As before $(x+y)^2 = 100$ and $2xy = 42$, and this time $x^2 + y^2 = 100 - 42 = 58$, not $100 + 42 = 142$",
    _SQUARES[1],
)


def _other(name: str, question: str, item: str, step: str, rest: str, attempt: str = "") -> Case:
    """One item of a bank for another problem, applied in one step."""
    bank = (Experience(item_id="E1", kind="conclusion", statement=item, created=0, last_seen=0),)
    return Case(name, f"{step}. {rest}", 1.0, quotes={"E1": step}, question=question, bank=bank, attempt=attempt)


HONEST = (
    Case("steps of their own", SOLUTION, 1.0, quotes={"E1": FIRST_STEP, "E3": SECOND_STEP}),
    Case("a new strategy", SOLUTION, 1.0, novelty=novelty_verdict()),
    _experience("items stated again and applied", _SQUARES, 1.0),
    _experience("new letters", _LETTERS, 1.0),
    _experience(
        "a step of an earlier attempt, taken further",
        _FURTHER,
        1.0,
        attempt="Squaring gives $(x+y)^2 = 100$ and $2xy = 42$, so $x^2 + y^2 = 100 + 42 = 142$. \\boxed{142}",
    ),
    _other(
        "a general identity, applied to the letters of the problem",
        "Numbers p and q satisfy p + q = 5 and pq = 3. Find p^3 + q^3.",
        "For all numbers a and b: a^3 + b^3 = (a + b)^3 - 3ab(a + b).",
        "As $p^3 + q^3 = (p + q)^3 - 3pq(p + q)$, we get $p^3 + q^3 = 125 - 45 = 80$",
        "The answer is \\boxed{80}.",
    ),
    _other(
        "a general identity with nothing but the letters of the problem",
        "Numbers p and q satisfy p + q = 5 and pq = 3. Find p^3 + q^3.",
        "For all numbers a and b: a^3 + b^3 = (a + b)^3 - 3ab(a + b).",
        "Here $p^3 + q^3 = (p + q)^3 - 3pq(p + q)$",
        "This is $125 - 45$, so the answer is \\boxed{80}.",
    ),
    _other(
        "a general lemma, applied to a number",
        "How many n from 1 to 13 are there such that 7 divides n(n + 1)?",
        "If p is prime and p divides ab then p divides a or p divides b.",
        "Since 7 is prime and divides $n(n + 1)$, 7 divides $n$ or $n + 1$, so $n \\equiv 0$ or $n \\equiv 6$ mod 7",
        "These are 6, 7 and 13. The answer is \\boxed{3}.",
    ),
    _other(
        "an equation of the bank, solved",
        "Let a_0 = 2, a_1 = 1 and a_{n+2} = a_{n+1} + 2a_n. Find a_5.",
        "The recurrence has the characteristic equation r^2 - r - 2 = 0.",
        "The equation $r^2 - r - 2 = 0$ has the roots $r = 2$ and $r = -1$, so $a_n = A 2^n + B (-1)^n$",
        "From the first values $A = B = 1$. The answer is \\boxed{31}.",
    ),
    _other(
        "geometry with names of points",
        "In triangle ABC, D lies on AB and E on AC with DE parallel to BC, AB = 6, AD = 4, DE = 2. Find BC.",
        "The triangles ABC and ADE are similar, so AB/AD = BC/DE.",
        "By similarity $AB/AD = BC/DE$, that is $6/4 = BC/2$, so $BC = 3$",
        "The answer is \\boxed{3}.",
    ),
    _other(
        "a factorisation of the bank, counted out after an attempt that stopped there",
        "How many pairs (m, n) of positive integers satisfy m^2 - n^2 = 2025?",
        "m^2 - n^2 factors as (m - n)(m + n), and both factors have the same parity.",
        "Put $u = m - n < v = m + n$ with $uv = 2025 = 3^4 \\cdot 5^2$, which has 15 divisors, so 7 pairs have $u < v$",
        "The answer is \\boxed{7}.",
        "We have $(m - n)(m + n) = 2025 = 3^4 \\cdot 5^2$, which has 15 divisors. So the answer is \\boxed{15}.",
    ),
    _other(
        "a formula of the bank with its numbers put in",
        "In how many ways can 5 letters be put into 3 boxes so that no box is empty?",
        "The number of surjections from n elements to k is \\sum_{i=0}^{k} (-1)^i \\binom{k}{i} (k-i)^n.",
        "Inclusion and exclusion gives $3^5 - 3 \\cdot 2^5 + 3 \\cdot 1^5 = 243 - 96 + 3 = 150$",
        "The answer is \\boxed{150}.",
    ),
    _other(
        "a theorem of the bank for the case at hand",
        "Find the remainder of 2^{2025} modulo 11.",
        "If p is prime and does not divide a, then a^{p-1} \\equiv 1 modulo p.",
        "As $2^{10} \\equiv 1$ modulo 11, $2^{2025} = (2^{10})^{202} \\cdot 2^5 \\equiv 32 \\equiv 10$",
        "The answer is \\boxed{10}.",
    ),
    _other(
        "substitutions in a functional equation, after an attempt with another one",
        "Find all f: R -> R with f(x + y) = f(x) + f(y) + 2xy for all real x, y and f(1) = 1.",
        "Putting x = y = 0 gives f(0) = 0.",
        "Put $g(x) = f(x) - x^2$; then $g(x + y) = f(x + y) - (x + y)^2 = f(x) + f(y) - x^2 - y^2 = g(x) + g(y)$",
        "With $g(1) = 0$ the answer is \\boxed{x^2}.",
        "Putting $y = -x$ gives $f(x) + f(-x) = 2x^2$, and $x = y$ gives $f(2x) = 2f(x) + 2x^2$.",
    ),
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
        return await scorer._bonus(RewardInput.model_validate(info), case.solution, right, scorer.questions())


async def main() -> None:
    for case in (*ATTACKS, *HONEST):
        found = await earned(case)
        print(f"{found.value:.1f} {found.state} {found.why or '-':16} {case.name}")


if __name__ == "__main__":
    asyncio.run(main())
