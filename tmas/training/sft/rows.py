"""Reads and checks the chats of ``tmas sft``, and turns them into tokens with the policy's own chat template.

A chat is never cut. A chat that cannot be used is left out with a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy
from jinja2 import TemplateError
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tmas.errors import FileDefects, UserError
from tmas.problems.files import READERS, FileRow, UnreadableFile, read_content
from tmas.records import Message

LossOn = Literal["assistant", "all"]
IGNORED = -100
"""Label of a token without a loss. torch's cross entropy ignores it."""
_ROWS_AT_ONCE = 1000
_MESSAGES = TypeAdapter(list[Message])


class SFTFileError(FileDefects):
    """Defects of files with chats."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        super().__init__([str(row) for row in left_out], "Set on_bad_row=skip to train without these rows.")


class RowDefect(Exception):
    """The reason why a row is left out. :class:`LeftOut` lists the reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Example:
    """A chat as tokens. Both arrays are int32 ``[tokens]``. A label is the token itself, or :data:`IGNORED`."""

    input_ids: NDArray[numpy.int32]
    labels: NDArray[numpy.int32]


@dataclass(frozen=True)
class LeftOut:
    """A row that is not used.

    ``place``: line or row in the file. ``reason``: ``unreadable`` (the row cannot be parsed), ``malformed`` (it is
    not a chat of non-empty messages that ends with the assistant's), ``control_token`` (a message contains a special
    token), ``template`` (the chat template refuses the chat), or ``too_long``.
    """

    file: Path
    place: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.reason}: {self.message}"


@dataclass(frozen=True)
class SFTData:
    """The examples for training and for validation, and the rows of both that are left out."""

    train: Sequence[Example]
    validation: Sequence[Example]
    left_out: Sequence[LeftOut]

    def __str__(self) -> str:
        tokens = sum(len(example.labels) for example in self.train)
        learned = sum(int((example.labels != IGNORED).sum()) for example in self.train)
        reasons = [f"{count:,} {reason}" for reason, count in Counter(row.reason for row in self.left_out).items()]
        return (
            f"{len(self.train):,} rows ({tokens:,} tokens, {learned:,} with a loss), {len(self.validation):,} rows "
            f"for validation; left out: {', '.join(reasons) or 'none'}"
        )


class ChatEncoder:
    """Turns chats into examples with a tokenizer of transformers. ``end_tokens``: the tokens that end a generation."""

    def __init__(
        self, tokenizer: Any, end_tokens: frozenset[int], max_length: int, loss_on: LossOn = "assistant"
    ) -> None:
        self.tokenizer = tokenizer
        self._loss_on = loss_on
        self._end_tokens = end_tokens
        self._max_length = max_length
        if tokenizer.is_fast:  # tokenizer.json may switch padding and truncation on
            tokenizer.backend_tokenizer.no_padding()
            tokenizer.backend_tokenizer.no_truncation()
        self._end_texts = [text for text in map(tokenizer.decode, end_tokens) if text]
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._control_tokens = [*special, *(text for text in self._end_texts if text not in special)]

    @classmethod
    def load(cls, path: str, max_length: int, loss_on: LossOn = "assistant") -> ChatEncoder:
        """Create the encoder for the policy at ``path``.

        Raises ``UserError`` if there is no policy, if it has no chat template, or if its context is too short.
        """
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        where = f"model.path {path}"
        try:
            tokenizer, config = AutoTokenizer.from_pretrained(path), AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise UserError(str(error).splitlines()[0], where=where) from error
        try:
            ends = GenerationConfig.from_pretrained(path).eos_token_id
        except OSError:  # a model without a generation config has these tokens in its model config
            ends = GenerationConfig.from_model_config(config).eos_token_id
        if not tokenizer.chat_template:
            raise UserError("the tokenizer has no chat template, which is needed to render chats", where=where)
        if max_length > (context := config.get_text_config().max_position_embeddings):
            raise UserError(f"max_length {max_length:,} is more than the policy's context of {context:,} tokens")
        return cls(tokenizer, frozenset([ends] if isinstance(ends, int) else ends or ()), max_length, loss_on)

    def examples(self, chats: Sequence[Sequence[Message]]) -> Iterator[Example | RowDefect]:
        """For each chat, yield its example, or the defect because of which it is left out.

        A chat consists of pieces: a prompt, the assistant's reply, the next prompt, and so on. Each piece is tokenized
        separately, because a generating model gets its prompt tokenized alone. The tokenizer is called once for all
        pieces of all chats.
        """
        pieces = [self._pieces_or_defect(messages) for messages in chats]
        texts = [text for chat in pieces if not isinstance(chat, RowDefect) for text, _ in chat]
        tokens = iter(self._tokenized(texts))
        for chat in pieces:
            yield (
                chat
                if isinstance(chat, RowDefect)
                else self._example([(next(tokens), by_model) for _, by_model in chat])
            )

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        if not self.tokenizer.is_fast:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _example(self, pieces: Sequence[tuple[Sequence[int], bool]]) -> Example | RowDefect:
        """Make an example from the pieces of a chat.

        ``pieces``: the tokens of each piece, and whether the assistant wrote it.
        """
        tokens = numpy.array([token for ids, _ in pieces for token in ids], numpy.int32)
        labels = tokens.copy()
        if self._loss_on == "assistant":
            labels[numpy.repeat([not by_model for _, by_model in pieces], [len(ids) for ids, _ in pieces])] = IGNORED
        labels[0] = IGNORED  # the first token cannot be predicted: no token precedes it
        if int(tokens[-1]) not in self._end_tokens:
            raise UserError(
                f"model.path: the chat template ends a turn with {self.tokenizer.decode(tokens[-1:])!r}, which does "
                "not end a generation (eos_token_id of generation_config.json): the policy would never learn to stop"
            )
        if len(tokens) > self._max_length:
            return RowDefect("too_long", f"{len(tokens):,} tokens, more than max_length {self._max_length:,}")
        return Example(tokens, labels)

    def _pieces_or_defect(self, messages: Sequence[Message]) -> list[tuple[str, bool]] | RowDefect:
        try:
            self._check(messages)
            return list(self._pieces(messages))
        except RowDefect as defect:
            return defect

    def _check(self, messages: Sequence[Message]) -> None:
        if not messages or messages[-1].role != "assistant":
            raise RowDefect("malformed", "field messages: the last message must be the assistant's")
        for number, message in enumerate(messages):
            if not message.content.strip():
                raise RowDefect("malformed", f"field messages.{number}.content: is empty")
            if found := [token for token in self._control_tokens if token in message.content]:
                raise RowDefect("control_token", f"field messages.{number}.content: contains {found[0]}")

    def _pieces(self, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
        """Yield the pieces of the rendered chat, each with whether the assistant wrote it."""
        before = ""
        for number, message in enumerate(messages):
            if message.role == "assistant":
                prompt = self._render(messages[:number], add_generation_prompt=True)
                if not prompt.startswith(before):
                    raise RowDefect(
                        "template", f"message {number}: the template changes the text of the messages before it"
                    )
                reply = self._reply(prompt, messages[: number + 1])
                if reply is None:
                    raise RowDefect(
                        "template",
                        f"message {number}: the template does not render it directly after its generation prompt",
                    )
                yield prompt[len(before) :], False
                yield reply, True
                before = prompt + reply

    def _reply(self, prompt: str, messages: Sequence[Message]) -> str | None:
        """The text that the model should generate after ``prompt``: the last message with its end token.

        Some templates write more after the end token than a model generates: a line break (Qwen) or the token that
        ends a text (Phi). This is cut off. The template of DeepSeek-R1's distilled models drops the thinking, although
        its generation prompt opens it; the thinking is put back.

        None if the rendered chat does not begin with ``prompt`` for another reason.
        """
        rendered = self._render(messages)
        if rendered.startswith(prompt):
            reply = rendered[len(prompt) :]
        else:
            before_thought = prompt.removesuffix("<think>\n")
            thought, end_of_thought, answer = messages[-1].content.removeprefix("<think>").rpartition("</think>")
            dropped = before_thought != prompt and end_of_thought and rendered.startswith(before_thought + answer)
            if not dropped:
                return None
            reply = thought.lstrip("\n") + end_of_thought + rendered[len(before_thought) :]
        ends = [place + len(text) for text in self._end_texts if (place := reply.find(text)) >= 0]
        return reply[: min(ends)] if ends else reply.rstrip()

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        chat = [message.model_dump() for message in messages]
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, **options)
        except TemplateError as error:  # raised by templates for a sequence of roles that the model does not support
            raise RowDefect("template", str(error)) from None


def load(train_files: Sequence[Path], val_files: Sequence[Path], encoder: ChatEncoder) -> SFTData:
    """Load the examples of all files in order, and collect the rows that are left out."""
    left_out: list[LeftOut] = []
    train, validation = ([*_examples(files, encoder, left_out)] for files in (train_files, val_files))
    return SFTData(train, validation, left_out)


def _examples(files: Sequence[Path], encoder: ChatEncoder, left_out: list[LeftOut]) -> Iterator[Example]:
    for file in files:
        if file.suffix not in READERS:
            raise UserError(
                f"unknown file type, not one of {', '.join(READERS)}",
                where=file,
                remedy="Convert the file to one of these.",
            )
        rows = _rows(file)
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            chats = [_messages_or_defect(row) for row in batch]
            encoded = encoder.examples([chat for chat in chats if not isinstance(chat, RowDefect)])
            for row, chat in zip(batch, chats, strict=True):
                outcome = chat if isinstance(chat, RowDefect) else next(encoded)
                if isinstance(outcome, Example):
                    yield outcome
                else:
                    place = row.place if row.place.startswith("row") else f"line {row.place}"
                    left_out.append(LeftOut(file, place, outcome.reason, str(outcome)))


def _rows(file: Path) -> Iterator[FileRow]:
    try:
        yield from READERS[file.suffix](read_content(file))
    except UnreadableFile as error:
        raise UserError(str(error), where=error.place_in(file)) from error


def _messages_or_defect(row: FileRow) -> list[Message] | RowDefect:
    if row.defect:
        return RowDefect("unreadable", row.defect)
    if "messages" not in row.values:
        return RowDefect("malformed", "field messages: is missing")
    try:
        return _MESSAGES.validate_python(row.values["messages"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("messages", *first["loc"]))
        return RowDefect("malformed", f"field {where}: {first['msg']}")
