"""training/sft/rows.py: which tokens of a chat are learned, and which rows are left out, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from pyarrow import parquet

pytest.importorskip("transformers", reason="needs the cpu or gpu extra")

from recipes.cpu.tiny_policy import TURN_END, train_tokenizer
from tmas.errors import UserError
from tmas.records import Message
from tmas.training.sft.rows import IGNORED, ChatEncoder, Example, LossOn, RowDefect, load

THINKING_TEMPLATE = (  # as Qwen3-Thinking's: it opens the thought itself, and keeps no thought of an earlier turn
    "{% for m in messages %}{% set last = loop.last %}"
    "<|im_start|>{{ m.role }}\n"
    "{% if '</think>' in m.content and not last %}{{ m.content.split('</think>')[1].strip() }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
CHAT = [("user", "What is 2 + 2?"), ("assistant", "It is 4."), ("user", "And 3 + 3?"), ("assistant", "6.")]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["What is 2 + 2? It is 4. And 3 + 3?"])


@pytest.fixture
def thinking() -> Any:
    tokenizer = train_tokenizer(["<think>Two and two.</think> It is 4."])
    tokenizer.chat_template = THINKING_TEMPLATE
    return tokenizer


def encoder(tokenizer: Any, max_length: int = 1000, loss_on: LossOn = "assistant") -> ChatEncoder:
    return ChatEncoder(tokenizer, frozenset([tokenizer.eos_token_id]), max_length, loss_on)


def encoded(encoder: ChatEncoder, turns: list[Message]) -> Example:
    [example] = encoder.examples([turns])
    assert isinstance(example, Example)
    return example


def messages(*turns: tuple[str, str]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": content}) for role, content in turns]


def rows(path: Path, *lines: Any) -> list[Path]:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines))
    return [path]


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_the_assistants_turns_are_learned_with_their_end_and_nothing_else(tokenizer: Any):
    example = encoded(encoder(tokenizer), messages(*CHAT))
    learned = example.labels != IGNORED
    assert tokenizer.decode(example.labels[learned]) == f"It is 4.{TURN_END}6.{TURN_END}"
    assert (example.input_ids[learned] == example.labels[learned]).all()
    whole = tokenizer.apply_chat_template(chat(*CHAT)["messages"], tokenize=False)
    assert tokenizer.decode(example.input_ids) == whole.rstrip()


def test_with_loss_on_all_every_token_but_the_first_is_learned(tokenizer: Any):
    example = encoded(encoder(tokenizer, loss_on="all"), messages(*CHAT))
    assert example.labels[0] == IGNORED
    assert example.labels[1:].tolist() == example.input_ids[1:].tolist()
    alone = encoded(encoder(tokenizer), messages(*CHAT))
    assert example.input_ids.tolist() == alone.input_ids.tolist()


def test_chats_encoded_together_give_the_tokens_of_each_alone_and_a_defect_in_its_place(tokenizer: Any):
    tokenizer.backend_tokenizer.enable_padding()  # as some tokenizer.json have it
    tokenizer.backend_tokenizer.enable_truncation(4)
    one, bad, two = messages(*CHAT), messages(("user", "x")), messages(*CHAT[:2])
    encoding = encoder(tokenizer)
    first, defect, last = encoding.examples([one, bad, two])
    assert isinstance(defect, RowDefect)
    for together, turns in [(first, one), (last, two)]:
        assert isinstance(together, Example)
        whole = tokenizer.apply_chat_template([m.model_dump() for m in turns], tokenize=False)
        assert tokenizer.decode(together.input_ids) == whole.rstrip()


def test_the_prompt_is_the_one_that_the_model_will_see(thinking: Any):
    turns = messages(("user", "2 + 2?"), ("assistant", "<think>\nTwo and two.\n</think>\nIt is 4."))
    example = encoded(encoder(thinking), turns)
    prompt = thinking.apply_chat_template([turns[0].model_dump()], add_generation_prompt=True, return_dict=False)
    assert example.input_ids[: len(prompt)].tolist() == prompt
    assert (example.labels[: len(prompt)] == IGNORED).all()
    assert thinking.decode(example.labels[len(prompt) :]) == f"Two and two.\n</think>\nIt is 4.{TURN_END}"


def test_a_csv_header_that_repeats_a_column_is_refused(tokenizer: Any, tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_text("messages,messages\n1,2\n")
    with pytest.raises(UserError, match=r"a\.csv:1: the header cannot be used: several columns are named 'messages'"):
        load([file], [], encoder(tokenizer))


def test_a_row_that_the_template_would_rewrite_is_left_out(thinking: Any, tmp_path: Path):
    thought = ("assistant", "<think>\nHm.\n</think>\nIt is 4.")
    files = rows(tmp_path / "a.jsonl", chat(("user", "2 + 2?"), thought, ("user", "Sure?"), thought))
    data = load(files, [], encoder(thinking))
    assert [row.reason for row in data.left_out] == ["template"]
    assert data.train == []


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"{", "unreadable", "invalid JSON"),
        ({"prompt": "x"}, "malformed", "field messages: is missing"),
        ({"messages": "x"}, "malformed", "field messages: "),
        (chat(("robot", "x")), "malformed", "field messages.0.role"),
        ({"messages": [{"role": "user"}]}, "malformed", "field messages.0.content"),
        (chat(), "malformed", "the last message must be the assistant's"),
        (chat(("user", "x")), "malformed", "the last message must be the assistant's"),
        (chat(("user", "x"), ("assistant", " \n")), "malformed", "field messages.1.content: is empty"),
        (
            chat(("user", "x"), ("assistant", "a<|im_end|>b")),
            "control_token",
            "field messages.1.content: contains <|im_end|>",
        ),
        (chat(("user", "x"), ("assistant", "long " * 1000)), "too_long", "tokens, more than max_length 1,000"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_reason(
    tokenizer: Any, tmp_path: Path, line: Any, reason: str, message: str
):
    files = rows(tmp_path / "a.jsonl", chat(*CHAT), line)
    data = load(files, [], encoder(tokenizer))
    [row] = data.left_out
    assert (row.file, row.place, row.reason) == (files[0], "line 2", reason)
    assert message in row.message
    assert len(data.train) == 1
    assert f"left out: 1 {reason}" in str(data)


def test_a_template_that_refuses_a_chat_is_a_reason(tokenizer: Any, tmp_path: Path):
    refusing = train_tokenizer(["x"])
    refusing.chat_template = "{{ raise_exception('no such shape') }}"
    data = load(rows(tmp_path / "a.jsonl", chat(*CHAT)), [], encoder(refusing))
    assert [(row.reason, row.message) for row in data.left_out] == [("template", "no such shape")]


def test_max_length_is_inclusive(tokenizer: Any):
    length = len(encoded(encoder(tokenizer), messages(*CHAT)).input_ids)
    assert len(encoded(encoder(tokenizer, length), messages(*CHAT)).input_ids) == length
    [defect] = encoder(tokenizer, length - 1).examples([messages(*CHAT)])
    assert isinstance(defect, RowDefect)
    assert f"more than max_length {length - 1}" in str(defect)


def test_a_template_whose_turns_would_not_end_a_generation_is_refused(tokenizer: Any):
    with pytest.raises(UserError, match="never learn to stop"):
        next(ChatEncoder(tokenizer, frozenset([tokenizer.pad_token_id]), 1000).examples([messages(*CHAT)]))


def test_parquet_with_further_columns_is_read(tokenizer: Any, tmp_path: Path):
    table = pyarrow.Table.from_pylist([{**chat(*CHAT), "problem_id": "p1"}, {**chat(CHAT[0]), "problem_id": "p2"}])
    parquet.write_table(table, tmp_path / "a.parquet")
    data = load([tmp_path / "a.parquet"], [tmp_path / "a.parquet"], encoder(tokenizer))
    assert (len(data.train), len(data.validation)) == (1, 1)
    assert [row.place for row in data.left_out] == ["row 2", "row 2"]


def test_a_file_of_an_unknown_kind_is_refused(tokenizer: Any, tmp_path: Path):
    with pytest.raises(UserError, match=r"a\.txt: unknown file type, not one of \.jsonl"):
        load(rows(tmp_path / "a.txt", chat(*CHAT)), [], encoder(tokenizer))


def test_a_policy_whose_context_is_too_short_is_refused(tmp_path: Path):
    from transformers import Qwen3Config

    train_tokenizer(["x"]).save_pretrained(tmp_path)
    Qwen3Config(max_position_embeddings=2048).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="max_length 4,096 is more than the policy's context of 2,048 tokens"):
        ChatEncoder.load(str(tmp_path), 4096)


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"model\.path "):
        ChatEncoder.load(str(tmp_path), 64)
