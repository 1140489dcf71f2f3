"""Checks a user's prompts before any model is called: files, syntax, includes, variables, sample renderings."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.visitor import NodeTransformer

from tmas.prompts.texts import PromptError, built_in_texts, include_of
from tmas.prompts.variables import MAY_BE_EMPTY, MUST_SHOW, VARIABLES, samples

if TYPE_CHECKING:
    from tmas.prompts import Prompts

_REFUSED = {nodes.Extends: "extends", nodes.Block: "block", nodes.Import: "import", nodes.FromImport: "from"}
"""Tags that combine files in other ways than an include."""


def read_folder(folder: Path) -> dict[str, str]:
    """Read the texts of the ``.jinja`` files in ``folder`` by name. Hidden files and other types are ignored."""
    if not folder.is_dir():
        raise PromptError(f"{folder}: there is no such folder")
    files = sorted(file for file in folder.glob("*.jinja") if not file.name.startswith("."))
    if not files:
        raise PromptError(f"{folder}: it holds no .jinja file; `tmas prompts FOLDER` writes the built-in ones")
    known = built_in_texts()
    if unknown := [_unknown_file(file, known) for file in files if file.stem not in known]:
        raise PromptError("\n  ".join(unknown))
    return {file.stem: _text(file) for file in files}


def check(prompts: Prompts) -> None:
    """Check syntax, then variables, then renderings, of the replaced prompts and of prompts that include them.

    Raises :class:`PromptError` with all defects that the first failing check finds.
    """
    for stage in (_wrong_syntax, _wrong_variables, _wrong_renderings):
        if found := list(stage(prompts)):
            raise PromptError("\n  ".join(found))


def _wrong_syntax(prompts: Prompts) -> Iterator[str]:
    """Yield the syntax errors of each file. If there are none, yield files that include themselves."""
    has_errors = False
    for name, text in prompts.replaced.items():
        for line, what in _defects_of_file(prompts, name, text):
            has_errors = True
            yield f"{prompts.place(name)}:{line}: {what}"
    if not has_errors:
        yield from _circles(prompts)


def _defects_of_file(prompts: Prompts, name: str, text: str) -> Iterator[tuple[int, str]]:
    try:
        prompts.environment.compile(text, name, prompts.place(name))
        tree = prompts.parsed(name)
    except TemplateSyntaxError as error:
        yield error.lineno, error.message or "syntax error"
        return
    for node in tree.find_all(tuple(_REFUSED)):
        yield node.lineno, f"the tag {_REFUSED[type(node)]!r} is not supported: use include"
    for node in tree.find_all(nodes.Include):
        file = include_of(node)
        if not file:
            yield node.lineno, "an include must name one prompt in quotes"
        elif file not in prompts.texts:
            yield node.lineno, f"{file!r} is not a prompt{_suggestion(file.removesuffix('.jinja'), prompts.texts)}"


def _circles(prompts: Prompts) -> Iterator[str]:
    for name in prompts.replaced:
        for node in prompts.parsed(name).find_all(nodes.Include):
            if name in prompts.files_of(include_of(node)):
                yield f"{prompts.place(name)}:{node.lineno}: the file includes itself, through {include_of(node)!r}"


def _affected(prompts: Prompts) -> list[str]:
    """The prompts that contain replaced files."""
    return [name for name in VARIABLES if prompts.files_of(name) & prompts.replaced.keys()]


def _wrong_variables(prompts: Prompts) -> Iterator[str]:
    """Yield each unknown variable of a file once, with the first prompt for which it is not defined."""
    named = set[tuple[str, str]]()
    for name in _affected(prompts):
        given = VARIABLES[name]
        used = meta.find_undeclared_variables(_with_includes(prompts, name))
        for variable in sorted(used - given.keys()):
            file, line = _first_use(prompts, name, variable)
            if (file, variable) not in named:
                named.add((file, variable))
                includes = ", which includes this file," if file != name else ""
                yield (
                    f"{prompts.place(file)}:{line}: unknown variable {variable!r}{_suggestion(variable, given)}. "
                    f"The variables of {name}.jinja{includes} are: {', '.join(sorted(given))}"
                )


def _with_includes(prompts: Prompts, name: str) -> nodes.Template:
    """The syntax tree of a prompt, with each include replaced by the tree of the included file.

    They are checked together, because an included file may use the loop variables of the prompt that includes it.
    """

    class Inliner(NodeTransformer):
        def visit_Include(self, node: nodes.Include) -> nodes.Node:  # the name that Jinja calls
            return nodes.Scope(self.visit(prompts.parsed(include_of(node))).body, lineno=node.lineno)

    tree = Inliner().visit(prompts.parsed(name))
    tree.set_environment(prompts.environment)
    return tree


def _first_use(prompts: Prompts, name: str, variable: str) -> tuple[str, int]:
    """Find the file and line where a prompt uses a variable.

    Searches its own file first, then the user's files, then the built-in ones.
    """
    files = sorted(prompts.files_of(name), key=lambda file: (file != name, file not in prompts.replaced, file))
    for file in files:
        for node in prompts.parsed(file).find_all(nodes.Name):
            if node.name == variable and node.ctx == "load":
                return file, node.lineno
    raise AssertionError(f"no file of {name} uses {variable}")


def _wrong_renderings(prompts: Prompts) -> Iterator[str]:
    """Yield the error of the first wrong rendering of each prompt: it fails, is empty, or lacks a required value."""
    for name in _affected(prompts):
        for values in samples(name):
            if found := _wrong_rendering(prompts, name, values):
                shown = ", ".join(f"{variable}={value!r}" for variable, value in values.items())
                yield f"{found} (rendered with {shown})"
                break


def _wrong_rendering(prompts: Prompts, name: str, values: dict[str, Any]) -> str | None:
    try:
        text = prompts.render(name, **values)
    except Exception as error:  # Jinja compiles and runs the user's text here, which may raise anything
        return f"{_raised_in(prompts, name, error)}: {error}"
    if name in MUST_SHOW and values[MUST_SHOW[name]] not in text:
        return f"{prompts.place(name)}: the prompt does not show {{{{ {MUST_SHOW[name]} }}}}"
    return None if text or name in MAY_BE_EMPTY else f"{prompts.place(name)}: the prompt is empty"


def _raised_in(prompts: Prompts, name: str, error: Exception) -> str:
    files = {prompts.place(file) for file in prompts.files_of(name)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else prompts.place(name)


def _unknown_file(file: Path, known: Iterable[str]) -> str:
    suggestion = _suggestion(file.stem, known, ".jinja")
    return f"{file}: no prompt has this name{suggestion}; `tmas prompts FOLDER` writes all prompts"


def _suggestion(name: str, names: Iterable[str], suffix: str = "") -> str:
    return "".join(f" (did you mean {near}{suffix}?)" for near in get_close_matches(name, names, 1))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{file}: not UTF-8 ({error})") from None
