"""training/sft/rows.py with the chat templates of several model families.

For each family: the prompt of a row is the prompt at inference, exactly the assistant's tokens with the end token are
learned, and the thinking is kept or dropped as in the family. The templates are in tests/fixtures/chat_templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the cpu or gpu extra")

from recipes.cpu.tiny_policy import train_tokenizer
from tmas.records import Message
from tmas.training.sft.rows import IGNORED, ChatEncoder, Example, RowDefect

TEMPLATES = Path(__file__).parents[3] / "fixtures" / "chat_templates"
THOUGHT, ANSWER = "Two and two.", "It is 4."
WITH_THOUGHT = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"


@dataclass(frozen=True)
class Family:
    """A model family.

    ``ends``: the tokens that end a generation; the first ends a turn. ``thought``, ``plain``: what the model should
    generate, without the end token, for a reply with and without thinking; None if the row is left out.
    ``many_turns``: whether a chat with two replies without thinking is used. ``reads_system``: whether the template
    accepts a system message.
    """

    template: str
    ends: tuple[str, ...]
    bos: str | None = None
    thought: str | None = WITH_THOUGHT
    plain: str | None = ANSWER
    many_turns: bool = True
    reads_system: bool = True
    opens_thought: bool = False


QWEN = ("<|im_end|>", "<|endoftext|>")
EMPTY_THOUGHT = f"<think>\n\n</think>\n\n{ANSWER}"
FAMILIES = {
    # Qwen3 drops the thoughts of earlier turns, also empty ones: only chats with one reply are used.
    "qwen3": Family("qwen3", QWEN, plain=EMPTY_THOUGHT, many_turns=False),
    "qwen3_thinking_2507": Family(
        "qwen3",
        QWEN,
        thought=WITH_THOUGHT.removeprefix("<think>\n"),
        plain=EMPTY_THOUGHT.removeprefix("<think>\n"),
        many_turns=False,
        opens_thought=True,
    ),
    "qwen2_5": Family("qwen2_5", QWEN),
    "deepseek_r1_distill": Family(
        "deepseek_r1_distill",
        ("<｜end▁of▁sentence｜>",),
        bos="<｜begin▁of▁sentence｜>",
        thought=WITH_THOUGHT.removeprefix("<think>\n"),
        plain=None,  # at inference its prompt begins a thought, so a reply without one cannot follow
        many_turns=False,
    ),
    "llama3": Family("llama3", ("<|eot_id|>", "<|end_of_text|>"), bos="<|begin_of_text|>"),
    "gemma": Family("gemma", ("<end_of_turn>", "<eos>"), bos="<bos>", reads_system=False),
    "phi3": Family("phi3", ("<|end|>", "<|endoftext|>"), bos="<s>"),
    "mistral": Family("mistral", ("</s>",), bos="<s>"),
}


@cache
def encoder(name: str) -> ChatEncoder:
    """A byte-level tokenizer with the family's template, end tokens and, as in Qwen3, tokens for thinking."""
    family = FAMILIES[name]
    template = (TEMPLATES / f"{family.template}.jinja").read_text("utf-8")
    if family.opens_thought:  # the only difference of Qwen3-Thinking-2507 that matters here
        prompt_end = "{{- '<|im_start|>assistant\\n' }}"
        assert template.count(prompt_end) == 1
        template = template.replace(prompt_end, "{{- '<|im_start|>assistant\\n<think>\\n' }}")
    tokenizer: Any = train_tokenizer([WITH_THOUGHT, "What is 2 + 2?"])
    special = dict.fromkeys([*family.ends, *filter(None, [family.bos]), "<|start|>"])
    tokenizer.add_tokens(list(special), special_tokens=True)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template, tokenizer.bos_token = template, family.bos
    tokenizer.eos_token = family.ends[-1]
    return ChatEncoder(tokenizer, frozenset(tokenizer.convert_tokens_to_ids(list(family.ends))), 1000)


def chat(*contents: str, system: str | None = None) -> list[Message]:
    """A chat that begins with the user. The roles alternate."""
    turns = [("system", system)] if system else []
    turns += [(("user", "assistant")[number % 2], content) for number, content in enumerate(contents)]
    return [Message.model_validate({"role": role, "content": content}) for role, content in turns]


def encode(name: str, messages: list[Message]) -> Example | RowDefect:
    [outcome] = encoder(name).examples([messages])
    return outcome


def check(name: str, messages: list[Message], replies: list[str]) -> None:
    """Check that the row learns ``replies`` with their end tokens, each after the prompt that a generation gets."""
    tokenizer, row = encoder(name).tokenizer, encode(name, messages)
    assert isinstance(row, Example), row
    learned = (row.labels != IGNORED).tolist()
    assert (row.labels[learned] == row.input_ids[learned]).all()
    place = 0
    numbers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    for number, reply in zip(numbers, replies, strict=True):
        before = [message.model_dump() for message in messages[:number]]
        prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=False)
        assert row.input_ids[: len(prompt)].tolist() == prompt
        assert not any(learned[place : len(prompt)])
        place = len(prompt)
        while place < len(learned) and learned[place]:
            place += 1
        assert tokenizer.decode(row.input_ids[len(prompt) : place]) == reply + FAMILIES[name].ends[0]
    assert place == len(row.input_ids)


def check_left_out(name: str, messages: list[Message]) -> None:
    outcome = encode(name, messages)
    assert isinstance(outcome, RowDefect)
    assert outcome.reason == "template"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("system", [None, "You add numbers."])
def test_a_reply_with_thinking(name: str, system: str | None):
    family, messages = FAMILIES[name], chat("What is 2 + 2?", WITH_THOUGHT, system=system)
    if family.thought is None or (system and not family.reads_system):
        check_left_out(name, messages)
    else:
        check(name, messages, [family.thought])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reply_without_thinking(name: str):
    family, messages = FAMILIES[name], chat("What is 2 + 2?", ANSWER)
    if family.plain is None:
        check_left_out(name, messages)
    else:
        check(name, messages, [family.plain])


@pytest.mark.parametrize("name", FAMILIES)
def test_two_replies(name: str):
    messages = chat("What is 2 + 2?", ANSWER, "Sure?", ANSWER)
    if FAMILIES[name].many_turns:
        check(name, messages, [ANSWER, ANSWER])
    else:
        check_left_out(name, messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_text_with_the_token_that_ends_a_turn_is_left_out(name: str):
    outcome = encode(name, chat("What is 2 + 2?", f"{ANSWER}{FAMILIES[name].ends[0]} More."))
    assert isinstance(outcome, RowDefect)
    assert outcome.reason == "control_token"
