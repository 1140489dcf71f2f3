"""prompts/: a user's folder in the place of built-in files, the check of it, and its way into other processes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError
from pydantic import BaseModel, ValidationError

from tmas.prompts import BUILT_IN, PromptError, Prompts, PromptsAsJson
from tmas.prompts.variables import VARIABLES, samples
from tmas.serve.settings import ServeSettings
from tmas.settings import RunSettings

PAGE = Path(__file__).parents[3] / "docs" / "prompts.md"
MODEL = {"name": "m", "base_url": "http://h:8000/v1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.jinja").write_text(text, encoding="utf-8")
    return folder


def refusal(folder: Path, **texts: str) -> str:
    with pytest.raises(PromptError) as refused:
        Prompts.load(write(folder, **texts))
    return str(refused.value)


def test_a_file_replaces_its_prompt_and_every_other_one_stays(folder: Path):
    prompts = Prompts.load(write(folder, self_graded="Do it: {{ question }}"))
    assert prompts.render("self_graded", question="Q?", task="answer") == "Do it: Q?"
    assert {name for name, found in prompts.hashes().items() if found != BUILT_IN.hash(name)} == {"self_graded"}
    for values in samples("solution"):
        assert prompts.render("solution", **values) == BUILT_IN.render("solution", **values)


def test_a_replaced_part_stands_in_every_prompt_that_includes_it(folder: Path):
    prompts = Prompts.load(write(folder, form="{% if task == 'proof' %}Prove.{% else %}Box it.{% endif %}"))
    for name in ("solution", "feedback", "refinement", "self_graded", "pacore"):
        for values in samples(name):
            asked = "Prove." if values["task"] == "proof" else "Box it."
            assert asked in prompts.render(name, **values)


@pytest.mark.parametrize("name", VARIABLES)
def test_replaced_files_render_as_jinja_s_own_includes_do(folder: Path, name: str):
    prompts = Prompts.load(write(folder, problem="A\n{% set x = 1 %}\n{{ question }}\n", form="{{ task }}\n\n"))
    template = prompts.environment.get_template(name)
    for values in samples(name):
        assert prompts.render(name, **values) == template.render(**values).strip()


def test_files_as_they_are_built_in_replace_nothing(folder: Path):
    BUILT_IN.write_all(folder)
    (folder / "notes.txt").write_text("of any kind")
    (folder / "summary.jinja").write_bytes(b"\xef\xbb\xbf" + BUILT_IN.texts["summary"].encode().replace(b"\n", b"\r\n"))
    assert Prompts.load(folder) == BUILT_IN


def test_built_in_files_are_never_written_over_others(folder: Path):
    BUILT_IN.write_all(folder)
    BUILT_IN.write_all(folder)
    (folder / "summary.jinja").write_text("Mine.")
    (folder / "form.jinja").unlink()
    with pytest.raises(PromptError, match=r"other texts in summary\.jinja: use another folder"):
        BUILT_IN.write_all(folder)
    assert (folder / "summary.jinja").read_text() == "Mine."
    assert not (folder / "form.jinja").exists()


# --- the check


@pytest.mark.parametrize("name", VARIABLES)
def test_the_built_in_prompts_pass_the_check(folder: Path, name: str):
    Prompts.load(write(folder, **{name: BUILT_IN.texts[name] + "\n\n.", "problem": BUILT_IN.texts["problem"] + "."}))


def test_a_folder_that_is_not_there_or_holds_no_prompt_is_refused(folder: Path):
    with pytest.raises(PromptError, match=r"mine: there is no such folder$"):
        Prompts.load(folder)
    assert "mine: it holds no .jinja file" in refusal(folder)


def test_an_unknown_file_is_refused_with_the_nearest_name(folder: Path):
    message = refusal(folder, sumary="Sum up.", form="Well.")
    assert "mine/sumary.jinja: no prompt has this name (did you mean summary.jinja?)" in message


def test_a_file_that_is_no_text_is_refused(folder: Path):
    folder.mkdir()
    (folder / "form.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match=r"mine/form\.jinja: not UTF-8"):
        Prompts.load(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary", "a\n{% if words %}\nb", "summary.jinja:3: Unexpected end of template"),
        ("summary", "a\n\n{{ words | nothing }}", "summary.jinja:3: No filter named 'nothing'"),
        ("summary", "{{ words | random }}", "summary.jinja:1: No filter named 'random'"),
        (
            "summary",
            'a\n{% include "canddate" %}',
            "summary.jinja:2: 'canddate' is not a prompt (did you mean candi",
        ),
        ("summary", '{% include "form.jinja" %}', "summary.jinja:1: 'form.jinja' is not a prompt (did you mean form?)"),
        ("summary", "{% include question %}", "summary.jinja:1: an include must name one prompt in quotes"),
        ("summary", "{% include 5 %}", "summary.jinja:1: an include must name one prompt in quotes"),
        ("summary", "{% include ['form'] %}", "summary.jinja:1: an include must name one prompt in quotes"),
        ("summary", '{% extends "form" %}', "summary.jinja:1: the tag 'extends' is not supported: use include"),
        ("summary", '{% include "summary" %}', "summary.jinja:1: the file includes itself, through 'summary'"),
        ("problem", 'a\n{% include "candidate" %}', "problem.jinja:2: the file includes itself, through 'candidate'"),
        (
            "summary",
            "a\n{{ verifications }}\n{{ solutoin }}",
            "summary.jinja:3: unknown variable 'solutoin' (did you mean solution?). The variables of "
            "summary.jinja are: question, solution, task, verifications, words",
        ),
        (
            "judge_novelty",
            "{{ gold }}",
            "judge_novelty.jinja:1: unknown variable 'gold'. The variables of judge_novelty.jinja are: bank",
        ),
        (
            "form",
            "a\n{{ words }}",
            "form.jinja:2: unknown variable 'words'. The variables of feedback.jinja, which includes this file, are:",
        ),
        ("solution", "{% for i in range(9) %}a{% endfor %}", "solution.jinja:1: unknown variable 'range'"),
        (
            "summary",
            '{% include "attempts" %}',
            "built-in attempts.jinja:3: unknown variable 'attempts'. The variables of summary",
        ),
        (
            "verification",
            "{% if structured %}\na\n{% else %}\n{{ question.nothing }}\n{% endif %}",
            "verification.jinja:4: 'str object' has no attribute 'nothing' (rendered with question='What is 7 + 5?', "
            "task='answer', solution='It is 12.', structured=False)",
        ),
        ("problem", "{{ question }}\n{{ question + 1 }}", "problem.jinja:2: can only concatenate str"),
        ("form", "{% if task == 'proof' %}\n{{ 1 / 0 }}\n{% endif %}", "form.jinja:2: division by zero (rendered with"),
        (
            "self_graded",
            "{% if task == 'answer' %}a{% endif %}",
            "self_graded.jinja: the prompt is empty (render",
        ),
        ("judge_code", "Repeat it.", "judge_code.jinja: the prompt does not show {{ code }} (rendered with code="),
        (
            "summary",
            "{{ words.__class__ }}",
            "summary.jinja:1: access to attribute '__class__' of 'int' object is",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(folder: Path, name: str, text: str, message: str):
    assert message in refusal(folder, **{name: text})


def test_all_files_are_checked_before_the_user_mends_the_first(folder: Path):
    message = refusal(folder, summary="{{ nothing }}", form="{{ nothing }}")
    assert message.count("summary.jinja:1: unknown variable") == message.count("form.jinja:1: unknown variable") == 1


def test_a_template_reaches_nothing_but_its_values():
    escape = "{{ question.__class__.__mro__ }}"
    with pytest.raises(SecurityError):
        Prompts({"problem": escape}).render("problem", question="Q?")
    assert Prompts({"problem": "{{ question }}"}).render("problem", question=escape) == escape


# --- settings, and other processes


def test_settings_take_a_folder_and_refuse_a_wrong_one(folder: Path):
    write(folder, form="Well.")
    settings = RunSettings.model_validate({"model": MODEL, "prompts": str(folder)})
    assert settings.prompts.texts["form"] == "Well."
    assert settings.model_dump(mode="json")["prompts"] == str(folder)
    assert RunSettings.model_validate({"model": MODEL, "prompts": None}).prompts == BUILT_IN
    serve = {"model": MODEL, "prompts": folder, "serve": {"output_dir": "out"}}
    assert ServeSettings.model_validate(serve).run_settings().prompts == settings.prompts
    write(folder, fom="Well.")
    with pytest.raises(ValidationError, match=r"fom\.jinja: no prompt has this name \(did you mean form\.jinja\?\)"):
        RunSettings.model_validate({"model": MODEL, "prompts": folder})


def test_a_copy_in_another_process_needs_no_folder(folder: Path):
    settings = RunSettings.model_validate({"model": MODEL, "prompts": write(folder, form="Well.")})
    settings.prompts.render("form", task="answer")  # what is compiled is no part of a copy
    sent = pickle.dumps(settings)
    (folder / "form.jinja").unlink()
    copy: RunSettings = pickle.loads(sent)
    assert copy.prompts.render("form", task="answer") == "Well."
    assert copy.prompts.hashes() == settings.prompts.hashes()


def test_texts_as_json_come_out_as_they_were_and_hold_no_interpolation():
    class Sent(BaseModel):
        prompts: PromptsAsJson = BUILT_IN

    prompts = Prompts({"form": 'Price: ${oc.env:HOME} $x$ \\${y} "é"\n'})
    text = Sent(prompts=prompts).model_dump(mode="json")["prompts"]
    assert "$" not in text
    assert Sent.model_validate({"prompts": text}).prompts == prompts
    assert Sent().model_dump(mode="json") == {"prompts": None}
    with pytest.raises(ValidationError, match="set prompts=FOLDER"):
        Sent.model_validate({"prompts": "a/folder"})
    with pytest.raises(ValidationError, match="has no prompt nothing"):
        Sent.model_validate({"prompts": '{"nothing": ""}'})


def test_the_page_lists_every_file_with_its_variables_and_shows_an_example_that_passes(folder: Path):
    page = PAGE.read_text("utf-8")
    rows = {row[1]: row[2] for row in re.finditer(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)}
    parts = BUILT_IN.texts.keys() - VARIABLES.keys()
    assert rows.keys() == VARIABLES.keys() | parts
    listed = {name: re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", rows[name])) for name in rows}
    assert {name: set(listed[name]) for name in VARIABLES} == {name: set(VARIABLES[name]) for name in VARIABLES}
    including = {part: {name for name, text in BUILT_IN.texts.items() if f'include "{part}"' in text} for part in parts}
    assert {part: set(listed[part]) for part in parts} == including
    [example] = re.findall(r"```jinja\n(.*?)```", page, re.DOTALL)
    Prompts.load(write(folder, verification=example))
    [error] = re.findall(r"prompts: mine/(verification\.jinja.*)\n", page)
    assert error in refusal(folder, verification=example.replace("structured", "structred"))
