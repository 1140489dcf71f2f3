"""Loads and renders prompts. Each role and each shared part is one ``.jinja`` file.

A user's folder can replace single files.

Training rows, distilled contexts, judges and inference all render through :class:`Prompts`, so that the policy is
trained on the prompts that it sees in use. Every built-in prompt begins with the text that other calls share (the
problem, then the attempts or the candidate), so that a server with prefix caching computes it once.

Prompts are rendered in Jinja's sandbox, because a folder may come from somebody else. Text from a model is only used as
a value and is never compiled as a template.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import orjson
from jinja2 import FunctionLoader, StrictUndefined, Template, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from tmas.prompts.check import check, read_folder
from tmas.prompts.texts import JUDGE, PromptError, built_in_texts, hash_of, include_of


class _Environment(ImmutableSandboxedEnvironment):
    """A Jinja environment that keeps its templates in a dictionary, because they never change. Jinja's own look-up of
    included files takes a quarter of the time of a rendering.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._templates: dict[str | Template, Template] = {}

    def get_template(
        self, name: str | Template, parent: str | None = None, globals: MutableMapping[str, Any] | None = None
    ) -> Template:
        found = self._templates.get(name)
        if found is None:
            found = self._templates[name] = super().get_template(name, parent, globals)
        return found


class Prompts:
    """All prompt files: the built-in ones, some of which may be replaced.

    ``replaced``: texts that differ from the built-in ones, by name. ``folder``: where these texts were read.
    Instances are immutable. A copy in another process contains the texts and needs no folder.
    """

    def __init__(self, replaced: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        given = sorted((replaced or {}).items())
        self.replaced = {name: text for name, text in given if text != built_in_texts()[name]}
        self.folder = folder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the built-in prompts, replaced by the ``.jinja`` files of ``folder``.

        Raises :class:`PromptError` for a folder with an unknown file, and for a prompt that could fail later.
        """
        prompts = cls(read_folder(folder), folder)
        check(prompts)
        return prompts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompts) and self.replaced == other.replaced

    def __hash__(self) -> int:
        return hash(tuple(self.replaced.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.replaced, self.folder)

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """The text of every prompt file, by name."""
        return {**built_in_texts(), **self.replaced}

    def render(self, name: str, **values: object) -> str:
        """Render a prompt. A variable that it uses must be given."""
        return self.environment.get_template(name).render(**values).strip()

    def hash(self, name: str) -> str:
        """See :func:`hash_of`."""
        return hash_of(self.texts[name])

    def hashes(self) -> dict[str, str]:
        """The hash of each prompt file of the agents. A run can only be resumed with the same hashes.

        Judges' prompts are left out, because no run depends on them; see :meth:`judge_hashes`.
        """
        return {name: self.hash(name) for name in sorted(self.texts) if not name.startswith(JUDGE)}

    def judge_hashes(self, *names: str) -> dict[str, str]:
        """The hash of each file that verdicts depend on: the judges' prompts ``names`` and their includes."""
        return {file: self.hash(file) for file in sorted({file for name in names for file in self.files_of(name)})}

    def files_of(self, name: str) -> set[str]:
        """The names of a prompt file and of all files that it includes, directly or indirectly."""
        found, pending = set[str](), [name]
        while pending:
            file = pending.pop()
            if file not in found:
                found.add(file)
                pending += (include_of(node) for node in self.parsed(file).find_all(nodes.Include))
        return found

    def parsed(self, name: str) -> nodes.Template:
        """The syntax tree of a prompt file."""
        return self.environment.parse(self.texts[name], name, self.place(name))

    def place(self, name: str) -> str:
        """The name of a prompt file in error messages."""
        return str(self.folder / f"{name}.jinja") if self.folder and name in self.replaced else f"built-in {name}.jinja"

    @cached_property
    def environment(self) -> _Environment:
        environment = _Environment(
            loader=FunctionLoader(lambda name: (self.texts[name], self.place(name), None)),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            auto_reload=False,
        )
        environment.globals.clear()  # range etc.: no prompt uses them, and each rendering would copy them
        del environment.filters["random"]  # a resumed run must render the same prompts
        return environment

    def to_json(self) -> str | None:
        """The replaced texts as JSON, for configurations that are sent to other machines; None if there are none.

        The JSON contains no ``$``, which OmegaConf would read as an interpolation.
        """
        return orjson.dumps(self.replaced).decode().replace("$", "\\u0024") if self.replaced else None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of :meth:`to_json`. Raises :class:`PromptError` for texts that cannot be used."""
        try:
            texts: dict[str, str] = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise PromptError("not the texts of prompts as JSON: set prompts=FOLDER instead") from None
        if unknown := sorted(texts.keys() - built_in_texts().keys()):
            raise PromptError(f"this version of tmas has no prompt {', '.join(unknown)}")
        prompts = cls(texts)
        check(prompts)
        return prompts

    def write_all(self, folder: Path) -> None:
        """Write all texts into ``folder``. Raises :class:`PromptError` if a file there has another content."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {folder / f"{name}.jinja": text.encode() for name, text in self.texts.items()}
        if differing := [file for file, text in files.items() if file.exists() and file.read_bytes() != text]:
            names = ", ".join(file.name for file in differing)
            raise PromptError(f"{folder} holds other texts in {names}: use another folder, or move these files away")
        for file, text in files.items():
            file.write_bytes(text)

    def write(self, folder: Path) -> None:
        """Write the replaced texts into ``folder``, which can then be used as ``prompts=FOLDER``."""
        for name, text in self.replaced.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.jinja").write_bytes(text.encode())


BUILT_IN = Prompts()
"""The prompts of this version, without replacements."""


def _from_setting(value: Any) -> Any:
    if value is None:
        return BUILT_IN
    return Prompts.load(Path(value)) if isinstance(value, str | Path) else value


def _from_json(value: Any) -> Any:
    if value is None:
        return BUILT_IN
    return Prompts.from_json(value) if isinstance(value, str) else value


PromptsSetting = Annotated[
    InstanceOf[Prompts],
    BeforeValidator(_from_setting),
    PlainSerializer(lambda prompts: str(prompts.folder) if prompts.folder else None),
]
"""A field of settings. A folder is read and checked; None is :data:`BUILT_IN`. It is serialised as the folder."""
PromptsAsJson = Annotated[InstanceOf[Prompts], BeforeValidator(_from_json), PlainSerializer(Prompts.to_json)]
"""A field of settings that are sent to other machines. It is read and serialised as :meth:`Prompts.to_json`."""
