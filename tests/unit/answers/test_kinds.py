"""Compares answers of unrelated kinds, each with each other: no two of them are equal, and no comparison fails."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import combinations_with_replacement

import pytest

from tests.support.waiting import LIMIT
from tmas.answers.equivalence import decide

KINDS = r"""
42 | -7 | 3/4 | 2\frac{1}{3} | 0.125 | 0.\overline{27} | 1.5e7 | 6.02\cdot 10^{23} | 35\% | 1,234,567 | 2^{61}-1
11011_2 | 5! | 9!! | \binom{9}{4} | C(11,3) | \gcd(4,6) | \operatorname{lcm}(4,9) | \max(4,11) | \min\{8,13\}
\lceil \pi^2 \rceil | \lvert -17 \rvert | \sqrt{19} | \sqrt[3]{-29} | \sqrt{2}+\sqrt{3} | \pi | e^{2} | i | 3+4i
e^{i\pi/3} | \ln 2 | \log_2 3 | \log 7 | \sin 1 | \cos 20^\circ | \tan^{-1} 3 | 75^\circ | 22^\circ 30' | \zeta(3)
\Gamma(1/3) | \varphi | \infty | \emptyset | \mathbb{R} | \mathbb{Z} | \{1,6\} | \{1,2,\dots,n\} | (1,6) | [1,6]
[1,6) | (0,1)\cup(2,3) | x>2 | -1<x<5 | x\neq 3 | \{x\mid x^2<8\} | 2,9 | x=4,y=9 | x=11 \text{ or } x=12 | \pm 5
3\pm\sqrt{2} | 1:2:5 | 3 \pmod 7 | x\equiv 2 \pmod 5 | 2x+1 | x^2-3x+5 | \frac{1}{x+1} | \sin x | 2\sin x\cos x
\cos^2\theta | n! | 2^{n} | \binom{n}{3} | \frac{n(n+1)}{2} | (-1)^n | \lfloor n/2\rfloor | F_n | C_{10} | a_n=n^3
f(x)=x^3 | f(n)=n+c | y=2x+7 | x^2+y^2=1 | \sum_{k=1}^{n}k^2 | \prod_{k=1}^{n}(1+k^2) | \int_0^1 x^4\,dx
\int \frac{dx}{x^3} | \lim_{n\to\infty}(1+2/n)^{3n} | \frac{dy}{dx} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
\begin{vmatrix}1&2\\3&15\end{vmatrix} | \vec{a}+\vec{b} | \begin{cases}x&x>0\\-x&x\leq 0\end{cases} | O(n\log n)
\frac{\pi}{4}+k\pi, k\in\mathbb{Z} | n\bmod 5 | \gcd(a,b) | yes | No | A | BD | \textbf{(E)} 14 | 5\text{ cm} | \$18
3:45 | Monday | n \text{ is prime} | \overline{AB} | AB\parallel CD | x+5\% | \frac{1}{0} | \tan 90^\circ | \ln 0
1.2.3 | \angle ABC=40^\circ | \operatorname{Re}(z) | A^T | P(A\mid B) | \nabla f | 100! | 2^{2^{2^{2^2}}} | ?
"""
ANSWERS = [answer.strip() for line in KINDS.strip().splitlines() for answer in line.split(" | ")]
EVERY_PAIR = list(combinations_with_replacement(ANSWERS, 2))
PARTNERS = (1, 40)
"""Distances in the list between the answers that are compared in each run of the tests."""


def check(pairs: Iterable[tuple[str, str]]) -> None:
    found: list[tuple[str, str, str]] = []
    for one, other in pairs:
        begun = time.process_time()
        verdict, reverse = (decide(*pair).equivalence.value for pair in ((one, other), (other, one)))
        assert time.process_time() - begun < LIMIT, (one, other)
        if verdict != reverse or (verdict == "equal") != (one == other):
            found.append((one, other, f"{verdict}, in the other direction {reverse}"))
    assert found == []


def test_there_are_more_than_a_hundred_kinds_each_once() -> None:
    assert len(set(ANSWERS)) == len(ANSWERS) > 100


def test_answers_of_unrelated_kinds_are_never_equal_in_either_direction() -> None:
    check((ANSWERS[place - distance], answer) for place, answer in enumerate(ANSWERS) for distance in PARTNERS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_all_pairs_of_unrelated_kinds_are_never_equal_in_either_direction() -> None:
    check(EVERY_PAIR)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_equals_itself(answer: str) -> None:
    check([(answer, answer)])
