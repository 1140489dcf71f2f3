from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.answers.extract import extract_boxed, extract_stated


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x : x > 0 \right.}", r"\left\{ x : x > 0 \right."),
        (r"\boxed {8}", "8"),
        (r"$\boxed 5$", "5"),
        (r"\boxed -3.5.", "-3.5"),
        (r"\(\boxed x\)", "x"),
        (r"Put it in \boxed format", None),
        (r"\boxed{4} is right; answer in \boxed{}", "4"),
        (r"\boxed{3} but \boxed{12", "3"),
        (r"\boxed{12 no, \boxed{13}", "13"),
        (r"a stray { and \boxed{6}", "6"),
        (r"a stray } and \boxed{6}", "6"),
        (r"\boxed{\boxed{9}}", "9"),
        (r"over-escaped \\boxed{9}", "9"),
        (r"\begin{array}{c} 1 \\ \boxed{2} \end{array}", "2"),
        ("\\boxed{1\n+ 2}", "1\n+ 2"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_found(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"The answers are $\boxed{2}$ and $\boxed{3}$.", "2, 3"),
        (r"\boxed{2} and \boxed{3}", "2, 3"),
        (r"$x = \boxed{2}$ or $x = \boxed{3}$", "2, 3"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"\[ \boxed{1} \text{ or } \boxed{2} \]", "1, 2"),
        (r"\boxed{2} and \boxed{2}", "2"),
        (r"\boxed{1}. So \boxed{2} and \boxed{3}", "2, 3"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{1}. \boxed{2}", "2"),
        (r"\boxed{1} is wrong, \boxed{2}", "2"),
        (r"\boxed{1}\boxed{2}", "2"),
        (r"\boxed{\boxed{2} and \boxed{3}}", "2, 3"),
        (r"\boxed{1} or \fbox{2} or $\boxed 3$", "1, 2, 3"),
        (r"\boxed{\boxed{9}} and \boxed{a \boxed{b} \boxed{c}}", "b, c"),
        (r"\boxed{4} \boxed{} \boxed{ }", "4"),
    ],
)
def test_boxes_of_one_list_are_one_answer(text: str, content: str) -> None:
    assert extract_boxed(text) == content


def balanced() -> st.SearchStrategy[str]:
    leaf = st.text(alphabet="ab1+ ", min_size=1).filter(str.strip) | st.just(r"\{") | st.just(r"\\")
    return st.recursive(leaf, lambda inner: st.lists(inner, min_size=1).map(lambda parts: "{" + "".join(parts) + "}"))


@given(balanced(), st.text(alphabet="xyz{}$. "), st.text(alphabet="xyz. "))
def test_a_balanced_box_is_found_whatever_goes_before(content: str, before: str, after: str) -> None:
    assert extract_boxed(f"{before}\\boxed{{{content}}}{after}") == content.strip()


@given(st.text(alphabet="\\{}boxed 1"))
def test_extraction_never_fails(text: str) -> None:
    found = extract_boxed(text)
    assert found is None or found in text


@pytest.mark.parametrize("piece", ["\\boxed{", "\\", "{", "\\boxed ", "\\boxed{1}", "\\boxed" + " " * 50])
def test_extraction_is_linear_in_degenerate_text(piece: str) -> None:
    started = time.process_time()
    extract_boxed(piece * (300_000 // len(piece)))
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is 12.", "12"),
        ("The answer is: -1,234", "-1,234"),
        ("**Answer:** $7/2$", "7/2"),
        ("The answer is 3. No, the final answer is 4", "4"),
        (r"The answer is 3, so \boxed{5}", "5"),
        ("It holds 12 eggs.", None),
    ],
)
def test_a_stated_answer_counts_where_there_is_no_box(text: str, answer: str | None):
    assert extract_stated(text) == answer


@pytest.mark.parametrize("text", [r"\boxed{a" * 30_000 + "}" * 30_000, r"\boxed{1}" * 30_000])
def test_boxes_without_end_take_no_time(text: str):
    started = time.process_time()
    assert extract_boxed(text) in ("a", "1")
    assert time.process_time() - started < 5
