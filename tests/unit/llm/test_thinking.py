from hypothesis import given
from hypothesis import strategies as st

from tmas.llm.thinking import split_thinking
from tmas.records import Completion

TEXTS = st.text(alphabet="ab \n<think>/", max_size=30)
PLAIN = st.text(max_size=30).filter(lambda text: "<think>" not in text and "</think>" not in text)


def parts(completion: Completion) -> tuple[str, str | None, str]:
    return completion.text, completion.reasoning, completion.thinking


def test_a_reply_without_thinking_is_all_text():
    assert parts(split_thinking(" The answer is 4.\n", "")) == ("The answer is 4.", None, "none")


def test_tags_are_split_at_the_last_close():
    content = "<think>one </think> two\n</think>\n\nThe answer is 4."
    assert parts(split_thinking(content, "")) == ("The answer is 4.", "one </think> two", "tags")


def test_the_opening_tag_may_stand_in_the_prompt():
    assert parts(split_thinking("so 4\n</think>\n4", "")) == ("4", "so 4", "tags")


def test_an_unclosed_thought_leaves_no_text():
    completion = split_thinking("<think>\nlet me see", "", "length")
    assert parts(completion) == ("", "let me see", "tags")
    assert completion.finish_reason == "length"


def test_a_thought_that_is_begun_again_and_not_closed_is_no_text():
    content = "one</think>two <think>three, perhaps 4"
    assert parts(split_thinking(content, "", "length")) == ("two", "onethree, perhaps 4", "tags")
    assert split_thinking("<think>one</think><think>two", "").text == ""


def test_empty_thinking_is_still_marked():
    assert parts(split_thinking("<think>\n\n</think>\n\n4", "")) == ("4", "", "tags")


def test_the_servers_own_field_comes_first():
    assert parts(split_thinking("\n\n4", "so 4\n")) == ("4", "so 4", "server")


def test_a_thought_that_the_server_left_in_the_content_is_no_text():
    assert parts(split_thinking("more</think>\n4", "so 4")) == ("4", "so 4\nmore", "server")
    assert parts(split_thinking("4\n<think>or 5", "so 4"))[0::2] == ("", "server")


def test_a_servers_thought_without_text():
    assert parts(split_thinking("", "so", "length")) == ("", "so", "server")


@given(TEXTS)
def test_no_tag_and_no_edge_whitespace_is_ever_left_in_the_text(content: str):
    text = split_thinking(content, "").text
    assert split_thinking(content, "so").text == text
    assert "<think>" not in text
    assert "</think>" not in text
    assert text == text.strip()


@given(st.text(max_size=30), PLAIN)
def test_what_was_thought_comes_back_as_it_was_wrapped(thought: str, said: str):
    completion = split_thinking(f"<think>{thought}</think>{said}", "")
    assert parts(completion) == (said.strip(), thought.strip(), "tags")


@given(PLAIN)
def test_text_without_tags_is_kept(content: str):
    assert parts(split_thinking(content, "")) == (content.strip(), None, "none")
