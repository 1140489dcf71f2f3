"""Turns the messages of a request into one problem.

The last user message is the problem. System messages and earlier turns are shown with it (``conversation.jinja``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tmas.prompts import Prompts
from tmas.serve.errors import ApiError, bad_request
from tmas.serve.settings import ServerSettings

Message = Mapping[str, Any]
SYSTEM = ("system", "developer")
SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}


class Question(NamedTuple):
    """The problem of a request as the agents see it, and the names of what was ignored in the messages."""

    text: str
    ignored: tuple[str, ...] = ()


def read_question(messages: Sequence[Message], settings: ServerSettings, prompts: Prompts) -> Question:
    """The question of a request. ``prompts``: the templates that render the problem with its context.

    Raises :class:`ApiError` for messages without a question, for content other than text, and for a question that is
    too long. With ``settings.strict``, also for more than one message and for every field other than role and content.
    """
    if settings.strict and (len(messages) != 1 or messages[0].get("role") != "user"):
        raise bad_request("messages", "must be exactly one message with the role user: the method sees one problem")
    texts, ignored = _texts(messages, settings.strict)
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise bad_request("messages", "there must be a message with the role user, which is the problem")
    if not texts[last]:
        raise bad_request(f"messages.{last}.content", "contains no question")
    instructions = [text for text, message in zip(texts, messages, strict=True) if message["role"] in SYSTEM and text]
    turns = [
        f"{SPEAKERS[message['role']]}: {text}"
        for text, message in zip(texts[:last], messages[:last], strict=True)
        if message["role"] in SPEAKERS and text
    ]
    if any(message["role"] in SPEAKERS for message in messages[last + 1 :]):
        ignored.append("messages.after_question")  # such as the beginning of a reply that the model is to continue
    if settings.conversation == "last":
        ignored += [name for name, found in (("messages.system", instructions), ("messages.earlier", turns)) if found]
        instructions, turns = [], []
    question = texts[last]
    if instructions or turns:
        context = {"instructions": "\n\n".join(instructions), "turns": turns}
        question = prompts.render("conversation", message=question, **context)
    _check_length(question, settings.max_question_characters, last if question == texts[last] else None)
    return Question(question, tuple(dict.fromkeys(ignored)))


def _texts(messages: Sequence[Message], strict: bool) -> tuple[list[str], list[str]]:
    """The text of each message, and the names of fields that have no effect."""
    texts: list[str] = []
    ignored: list[str] = []
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or (role not in SYSTEM and role not in SPEAKERS):
            raise bad_request(f"messages.{i}.role", f"must be one of {', '.join([*SYSTEM, *SPEAKERS])}")
        ignored += _other_fields(message, {"role", "content"}, "messages", f"messages.{i}", strict)
        if content is None and role != "user":  # an assistant's call of a tool
            content = ""
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if not all(_is_text(part) for part in parts):
            raise bad_request(f"messages.{i}.content", "only text is supported")
        for number, part in enumerate(parts):
            place = f"messages.{i}.content.{number}"
            ignored += _other_fields(part, {"type", "text"}, "messages.content", place, strict)
        texts.append("\n".join(part["text"] for part in parts).strip())
    return texts, ignored


def _other_fields(given: Message, known: set[str], parent: str, place: str, strict: bool) -> list[str]:
    """The names, below ``parent``, of fields that are neither known nor null.

    With ``strict``, the first of them raises :class:`ApiError`. ``place``: where they are.
    """
    others = [name for name, value in given.items() if name not in known and value is not None]
    if strict and others:
        raise bad_request(f"{place}.{others[0]}", "not supported", "unsupported_field")
    return [f"{parent}.{name}" for name in others]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _check_length(question: str, limit: int, number: int | None) -> None:
    """Raise :class:`ApiError` if the question is too long.

    ``number``: index of the message that is the whole question; None if the question has several messages.
    """
    if len(question) > limit:
        place = "messages" if number is None else f"messages.{number}.content"
        text = (
            f"{place}: {len(question)} characters; this server allows at most {limit} (serve.max_question_characters)"
        )
        raise ApiError(413, "question_too_long", text, place)
