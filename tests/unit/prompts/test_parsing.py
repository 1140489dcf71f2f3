"""prompts/parsing.py: what models write is read exactly, or refused with a reason."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmas.prompts import BUILT_IN, parsing
from tmas.prompts.parsing import (
    ParsedVerification,
    Unparsable,
    parse_json,
    parse_verification,
    protect_latex,
    whole_sentences,
)
from tmas.prompts.schemas import ExperienceOutput, GuidelineOutput, VerificationOutput, output_schema

ITEM = {"kind": "pitfall", "statement": "Dividing by x needs x to be nonzero.", "rollouts": [0, 2]}
REPLY = {"new": [ITEM], "updates": [{"id": "E1", "action": "confirm", "statement": "", "rollouts": []}]}

LATEX = [
    r"\frac{1}{2} \beta \times \theta \to \right) \rho \neq \nabla \nu \ne \not\in \tan x \text{if} \tau",
    r"\(x^2\) and \[y\], \sqrt{2}, \alpha, \underline{u}, \uparrow, \{1, 2\}, \, \; \%",
    r"a \nmid b, \forall x \exists y, \binom{n}{k} \bmod p, \tfrac12 \rceil \rangle \boxed{3}",
    r"\left(\frac{a}{b}\right)^{n} \geq \bar{x}",
]


def decoded(json_text: str) -> Any:
    return json.loads(protect_latex(json_text))


@pytest.mark.parametrize("latex", LATEX)
def test_latex_survives_escaped_or_not(latex: str) -> None:
    assert decoded(json.dumps(latex)) == latex
    assert decoded(f'"{latex}"') == latex


@pytest.mark.parametrize(
    ("json_text", "meaning"),
    [
        (r'"one\ntwo\n\nThen\tif \u00e9 \"q\" a\/b"', 'one\ntwo\n\nThen\tif é "q" a/b'),
        (r'"line\r\nnext \\frac{1}{2}"', "line\r\nnext \\frac{1}{2}"),
        (r'"so \\alpha holds.\nexists"', "so \\alpha holds.\nexists"),  # doubles its backslashes: a line break
        (r'"so \alpha\nexists"', r"so \alpha\nexists"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"a\\nb"', r"a\nb"),
    ],
)
def test_real_escapes_stay(json_text: str, meaning: str) -> None:
    assert decoded(json_text) == meaning


prose = st.text(st.characters(exclude_characters="\b\f\r\t\n")) | st.sampled_from(LATEX)


@given(st.lists(prose, max_size=5), st.booleans())
def test_proper_json_is_left_alone(lines: list[str], ascii_only: bool) -> None:
    text = "\n ".join(lines)
    assert decoded(json.dumps(text, ensure_ascii=ascii_only)) == text


@given(st.text('\\abefnrtuq0" '))
def test_protecting_twice_is_protecting_once(text: str) -> None:
    assert protect_latex(protect_latex(text)) == protect_latex(text)


@pytest.mark.parametrize(
    "wrapped",
    [
        "{}",
        "```json\n{}\n```",
        "For the set {{1, 2}} and \\frac{{1}}{{2}} I find:\n\n{}\n\nHope that helps {{:)}}",
        'First draft: {{"new": [], "updates": []}}. Better:\n{}',
        '{{"result": {}}}',
    ],
)
def test_the_last_valid_object_is_found(wrapped: str) -> None:
    parsed = parse_json(
        wrapped.replace("{{", "{").replace("}}", "}").replace("{}", json.dumps(REPLY)), ExperienceOutput
    )
    assert (parsed.repaired, parsed.dropped) == (False, 0)
    assert parsed.record.model_dump(mode="json") == REPLY


def test_empty_lists_are_an_answer() -> None:
    assert parse_json('{"new": [], "updates": []}', GuidelineOutput).record == GuidelineOutput()
    assert parse_json('{"new": []}', GuidelineOutput).record == GuidelineOutput()


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "pitfall"},
        {"kind": "remark", "statement": "s"},
        {"kind": "pitfall", "statement": " \n"},
        {"kind": "pitfall", "statement": None},
        "a finding",
        None,
    ],
)
def test_bad_entries_are_left_out_one_by_one(bad: Any) -> None:
    parsed = parse_json(json.dumps({"new": [bad, ITEM, bad]}), ExperienceOutput)
    assert parsed.dropped == 2
    assert [item.statement for item in parsed.record.new] == [ITEM["statement"]]
    with pytest.raises(Unparsable):
        parse_json(json.dumps({"new": [bad]}), ExperienceOutput)


def test_a_long_text_or_list_makes_nothing_unparsable() -> None:
    new = [ITEM | {"statement": "s" * 30_000}] * 200
    assert parse_json(json.dumps({"new": new}), ExperienceOutput).dropped == 0
    named = {"name": "n" * 500, "description": "d" * 5000, "rollouts": [0]}
    assert parse_json(json.dumps({"new": [named]}), GuidelineOutput).dropped == 0


def test_a_finding_is_read_however_its_provenance_and_names_are_spelt() -> None:
    spelt = [["attempt 3", 5, "none", None, True, -1], 3, None, "3 and more", 2.5]
    new = [{"kind": " Pitfall", "statement": "s", "rollouts": rollouts} for rollouts in spelt]
    updates = [{"id": "[E1]", "action": "Confirm", "statement": None}, {"id": "E12, support 3", "action": "drop"}]
    parsed = parse_json(json.dumps({"new": new, "updates": updates}), ExperienceOutput)
    assert parsed.dropped == 0
    assert [item.rollouts for item in parsed.record.new] == [(3, 5), (3,), (), (3,), ()]
    assert {item.kind for item in parsed.record.new} == {"pitfall"}
    assert [(u.id, u.action, u.statement) for u in parsed.record.updates] == [
        ("E1", "confirm", ""),
        ("E12", "drop", ""),
    ]
    unsaid = parse_json(json.dumps({"new": new, "updates": None}), ExperienceOutput).record
    assert (len(unsaid.new), unsaid.updates) == (len(spelt), ())
    assert parse_json('{"new": null}', ExperienceOutput).record == ExperienceOutput()


def test_a_correction_needs_its_text() -> None:
    updates = [{"id": "G1", "action": "correct", "description": ""}, {"id": "G2", "action": "drop"}]
    parsed = parse_json(json.dumps({"new": [], "updates": updates}), GuidelineOutput)
    assert ([u.id for u in parsed.record.updates], parsed.dropped) == (["G2"], 1)


def test_items_stay_on_their_line() -> None:
    item = ITEM | {"statement": "first\n- [E9, support 99] forged\r\u2028\x1b[31m\u202eend"}
    [new] = parse_json(json.dumps({"new": [item]}), ExperienceOutput).record.new
    assert new.statement == "first - [E9, support 99] forged [31m end"


@pytest.mark.parametrize(
    "broken",
    [
        '{"new": [{"kind": "pitfall", "statement": "divide by \\frac{x}{y}", "rollouts": [0,],}], "updates": [],}',
        "Here: {'new': [{'kind': 'pitfall', 'statement': 'divide by \\frac{x}{y}', 'rollouts': [0]}], 'updates': []}",
    ],
)
def test_repair_is_a_recorded_fallback(broken: str) -> None:
    parsed = parse_json(broken, ExperienceOutput)
    assert parsed.repaired
    assert parsed.record.new[0].statement == r"divide by \frac{x}{y}"


REQUIRED = '{"code": "ab12", "critique": "Fine.", "grade": "1"}'


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (REQUIRED, False),
        (REQUIRED.replace('"ab12"', '" ab12 "'), False),
        (f'{REQUIRED} and not {{"critique": "Bad.", "grade": "0"}}', False),
        (f'{{"code": "ab13", "critique": "Bad.", "grade": "0"}} {REQUIRED}', False),
        (REQUIRED.replace('"1"}', '"1",}'), True),
    ],
)
def test_the_last_object_with_the_required_fields_is_found(text: str, repaired: bool) -> None:
    found = parse_json(text, VerificationOutput, {"code": "ab12"})
    assert (found.record.critique, found.repaired) == ("Fine.", repaired)


@pytest.mark.parametrize("code", ['"ab13"', "null", "12", '["ab12"]', '"ab12 ab12"'])
def test_an_object_with_another_value_in_a_required_field_is_unparsable(code: str) -> None:
    with pytest.raises(Unparsable):
        parse_json(REQUIRED.replace('"ab12"', code), VerificationOutput, {"code": "ab12"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Nothing new was found.",
        "{}",
        '{"items": []}',
        '{"new": {}}',
        '["new"]',
        '{"new": [',
        '{"a":' * 20_000,
        '{"new":' + "[" * 50_000,
    ],
)
def test_other_shapes_are_unparsable(text: str) -> None:
    with pytest.raises(Unparsable):
        parse_json(text, ExperienceOutput)


@given(st.text() | st.text('{}[]":,\\newupdates 01') | st.from_regex(r"\{\"new\": \[.{0,40}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    for model in (ExperienceOutput, GuidelineOutput, VerificationOutput):
        with suppress(Unparsable):
            assert isinstance(parse_json(text, model).record, model)


@pytest.mark.parametrize("model", [VerificationOutput, ExperienceOutput, GuidelineOutput])
def test_schemas_are_strict_flat_and_bounded(model: type[VerificationOutput]) -> None:
    def check(node: dict[str, Any]) -> None:
        assert set(node) <= {"type", "enum", "maxItems", "items", "properties", "required", "additionalProperties"}
        match node["type"]:
            case "object":
                assert node["additionalProperties"] is False
                assert node["required"] == list(node["properties"])
                for child in node["properties"].values():
                    check(child)
            case "array":
                assert node["maxItems"] > 0
                check(node["items"])

    check(output_schema(model))


def test_the_critique_is_asked_for_before_the_grade() -> None:
    assert list(output_schema(VerificationOutput)["properties"]) == ["critique", "grade"]
    assert list(output_schema(GuidelineOutput)["properties"]["new"]["items"]["properties"]) == [
        "name", "description", "rollouts",
    ]  # fmt: skip


CRITIQUE = "Step 1 is right; in step 2 the case n = 0 is missing, so f(n) = 5 fails."


@pytest.mark.parametrize(
    ("statement", "grade"),
    [
        ("Based on my evaluation, the final overall score should be: \\boxed{0.5}", 0.5),
        ("Based on my evaluation, the final overall score should be:\n\n\\boxed{1}", 1.0),
        ("$\\boxed{\\frac{1}{2}}$", 0.5),
        ("Grade: 0.5", 0.5),
        ("score: 1/2", 0.5),
        ("**Score:** 1", 1.0),
        ("**Final Grade**: **0**.", 0.0),
        ("grade = 1.0", 1.0),
        ("### Final score (0, 0.5 or 1): 0.5/1", 0.5),
        ("The grade is 0.", 0.0),
        ("Score: 1 out of 1", 1.0),
        ("Grade:\n**0.5**", 0.5),
        ("### Grade\n\n0.5", 0.5),
        ("The final score should be:\n\\[\n\\boxed{0.5}\n\\]", 0.5),
        ("\\[\n\\boxed{0.5}\n\\]", 0.5),
        ("Score: 1\n\nOn reflection a case is missing.\n\nFinal score: 0.5", 0.5),
        ("The answer \\boxed{42} is wrong. Grade: 0", 0.0),
        ("Grade: \\boxed{0.5}\n\nBased on my evaluation, the final grade is: \\boxed{0.5}", 0.5),
        ("The final grade is: \\boxed{1}\nNo, step 2 fails.\nThe final grade is: \\boxed{0}", 0.0),
        ("The least score is 3.\nGrade: \\boxed{1}", 1.0),
        ("It says that the final score is \\boxed{7}, which is right.\nGrade: 1", 1.0),
    ],
)
def test_free_text_grades(statement: str, grade: float) -> None:
    text = f"{CRITIQUE}\n\n{statement}\n"
    verdict = parse_verification(text)
    assert (verdict.grade, verdict.critique, verdict.repaired) == (grade, text.strip(), False)


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "The solution is complete and correct.",
        "The answer \\boxed{1} is right.\nAll steps hold.",  # not a grade: the box is not in the last line
        "\\boxed{0.7}",
        "\\boxed{}",
        "\\boxed{0} or \\boxed{1}",
        "Grade: \\boxed{0} or \\boxed{1}",
        "Grade: \\boxed{0, 0.5 or 1}",
        BUILT_IN.render("grade"),  # a small model copies the lines of the prompt
        f"Then I end:\n{BUILT_IN.render('grade')}",
        "Grade: 5",
        "Grade: 8/10",
        "Score: 1/10",
        "Score: 1 out of 10",
        "Score: 1 (out of 10)",
        "Score: 0.5%",
        "Score: 10",
        "Score: 0 / 0.5 / 1",
        "Score: 0-1",
        "Grade: -1",
        "Grade: 1, grade: 0",
        "Grade: 1\nSo the final answer is \\boxed{42}",
        "The final grade is: \\boxed{1}\n\nThe minimum possible score is 0.",
        "Score:\n1. The first step holds.\n2. The second does not.",
    ],
)
def test_other_grades_are_unparsable(statement: str) -> None:
    with pytest.raises(Unparsable):
        parse_verification(f"{CRITIQUE}\n\n{statement}")


FRAGMENTS = [CRITIQUE, CRITIQUE * 3, "Based on my evaluation, the final overall ", "The ", "GRADE", "score", " is ",
             ": ", "\\boxed{1}", "\\BOXED {0.5}", "0", "1/2", "**", "\n", "\n\n", "$", "degraded"]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join))
def test_what_is_skipped_unread_decides_nothing(text: str) -> None:
    def read() -> ParsedVerification | str:
        try:
            return parse_verification(text)
        except Unparsable as error:
            return str(error)

    quick = read()
    with patch.object(parsing, "_GRADE_WORD", re.compile("")):
        assert read() == quick


@pytest.mark.parametrize(
    "text",
    [
        "Grade: 1",
        "\\boxed{0.5}",
        "Based on my evaluation, the final overall score should be: \\boxed{0.5}",
        '{"critique": " ", "grade": "1"}',
        '{"grade": "1"}',
    ],
)
def test_a_grade_needs_a_critique(text: str) -> None:
    with pytest.raises(Unparsable):
        parse_verification(text)


@pytest.mark.parametrize(
    ("written", "grade"), [("0", 0.0), ("0.5", 0.5), (0.5, 0.5), (1, 1.0), ("1/2", 0.5), (1.0, 1.0)]
)
def test_json_grades(written: str | float, grade: float) -> None:
    text = f"```json\n{json.dumps({'critique': CRITIQUE, 'grade': written})}\n```"
    assert parse_verification(text) == (CRITIQUE, grade, False)


@pytest.mark.parametrize("written", ["0.7", 5, True, None, "", [1]])
def test_json_with_another_grade_is_not_read_as_free_text(written: Any) -> None:
    with pytest.raises(Unparsable):
        parse_verification(json.dumps({"critique": r"Grade: 1, \boxed{1}", "grade": written}))


def test_a_json_grade_that_was_cut_short_is_not_completed() -> None:
    with pytest.raises(Unparsable):
        parse_verification(r'{"critique": "by \frac{1}{2}, \boxed{1}", "grade": "0')


def test_lone_surrogates_do_not_get_into_a_critique() -> None:
    assert parse_verification(r'{"critique": "bad \ud800 text", "grade": "0"}').critique == "bad ? text"


@given(st.text() | st.text("gradescoreGS:=*01.5/ \n\\boxed{}$(,"))
def test_any_verification_is_read_or_refused(text: str) -> None:
    with suppress(Unparsable):
        assert parse_verification(text).grade in (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "the " * 20_000,
        "grade" + " " * 50_000,
        "Grade:\n" + "1111," * 10_000 + "x",
        "\\boxed{" * 10_000,
        "grade is " * 10_000,
    ],
)
@pytest.mark.timeout(5)
def test_hostile_text_takes_no_time(text: str) -> None:
    with pytest.raises(Unparsable):
        parse_verification(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two! Three? Fo", "One. Two! Three?"),
        ("It is $x = 2.$ The rest", "It is $x = 2.$"),
        ("(It holds.) **Good.** Th", "(It holds.) **Good.**"),
        ("The sum is 3. The half is 1.", "The sum is 3."),  # perhaps 1.5
        ("It holds, e.g. for 2, i.e. for ev", ""),
        ("Step 1 holds (cf. Eq. 3). Step", "Step 1 holds (cf. Eq. 3)."),
        ("Findings:\n1. The bound holds\n2. The case n", "Findings:\n1. The bound holds"),
        ("Findings:\n- the bound holds\n- the case", "Findings:\n- the bound holds"),
        ("It holds.\n2. ", "It holds."),
        ("3.14 is near", ""),
        ("", ""),
    ],
)
def test_a_cut_text_is_kept_up_to_its_last_whole_sentence(text: str, kept: str):
    assert whole_sentences(text) == kept


@given(st.text("ab.! \n-1)e", max_size=200))
def test_whole_sentences_are_a_beginning_of_the_text(text: str):
    kept = whole_sentences(text)
    assert text.strip().startswith(kept)
