"""llm/tokens.py: counts by the model's own tokenizer, and the room that a context leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tmas.errors import UserError
from tmas.llm.tokens import CHAT_TEMPLATE_TOKENS, ContextWindow, token_counter


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model folder whose tokenizer knows two words, and begins each text with a special token."""
    tokenizer = Tokenizer(models.WordLevel({"[BOS]": 0, "[UNK]": 1, "two": 2, "words": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing("[BOS] $A", special_tokens=[("[BOS]", 0)])  # type: ignore[assignment]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_folder_or_a_file_gives_the_model_s_own_tokens(model_folder: Path):
    for place in (model_folder, model_folder / "tokenizer.json"):
        count = token_counter(str(place))
        assert [count(""), count("two words"), count("two other words")] == [0, 2, 3]


def test_a_folder_without_a_tokenizer_is_not_looked_for_on_the_hub(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        token_counter(str(tmp_path))


def test_an_estimate_goes_by_bytes_and_rounds_up():
    count = token_counter("estimate")
    assert [count(text) for text in ("", "x", "x" * 5, "x" * 6, "∑" * 5)] == [0, 1, 2, 3, 6]


def test_the_completion_and_the_chat_template_are_always_kept_free():
    window = ContextWindow(len, 1000 + 130_000 + CHAT_TEMPLATE_TOKENS, 130_000)
    assert window.limit == 1000
    assert window.fits("x" * 1000)
    assert not window.fits("x" * 1001)


def test_a_context_without_room_for_a_prompt_is_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"max_tokens=8192 leaves no room .*context_length=8192 tokens"):
        ContextWindow(len, 8192, 8192)
    with pytest.raises(UserError, match="no room"):
        ContextWindow(len, 8192 + CHAT_TEMPLATE_TOKENS, 8192)


def test_a_prompt_of_few_bytes_is_not_tokenised():
    def refuse(text: str) -> int:
        raise AssertionError("tokenised")

    window = ContextWindow(refuse, 100 + CHAT_TEMPLATE_TOKENS, 50)
    assert window.fits("é" * 25)
    with pytest.raises(AssertionError, match="tokenised"):
        window.fits("é" * 26)


@given(st.text(), st.integers(1, 60))
def test_what_fits_is_what_counts_no_more_than_the_limit(prompt: str, limit: int):
    window = ContextWindow(token_counter("estimate"), limit + 10 + CHAT_TEMPLATE_TOKENS, 10)
    assert window.fits(prompt) == (window.count(prompt) <= limit)
