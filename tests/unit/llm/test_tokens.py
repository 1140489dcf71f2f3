"""llm/tokens.py: counts by the model's own tokenizer, and the room that a context leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tmas.errors import UserError
from tmas.llm.tokens import (
    CHAT_TEMPLATE_TOKENS,
    MERGED_TOKENS,
    ContextWindow,
    chat_template_tokens,
    token_counter,
)
from tmas.miniature import POLICY


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


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one repository needs: the files of ``folder``."""

    folder: Path
    asked: list[str]
    is_down = False

    def do_HEAD(self) -> None:
        if "/resolve/" in self.path:  # the library asks the hub other things, too
            self.asked.append(self.path)
        file = self.folder / self.path.rpartition("/")[2]
        if self.is_down:
            self.send_error(503)
            return
        self.send_response(200 if file.exists() else 404)
        self.send_header("Content-Length", str(file.stat().st_size if file.exists() else 0))
        if file.exists():
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("X-Repo-Commit", "a" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if (file := self.folder / self.path.rpartition("/")[2]).exists():
            self.wfile.write(file.read_bytes())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library ask the hub at ``url``. It reads its environment variables only when it is imported."""
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub whose every repository is ``model_folder``."""
    handler = type("OneHub", (Hub,), {"folder": model_folder, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        use_hub(f"http://127.0.0.1:{server.server_port}", model_folder / "cache", monkeypatch)
        Thread(target=server.serve_forever).start()
        yield handler
        server.shutdown()


def test_a_tokenizer_of_the_hub_is_downloaded_once(hub: type[Hub], model_folder: Path):
    (model_folder / "chat_template.jinja").write_text("{% for m in messages %}two{{ m.content }} two{% endfor %}")
    assert token_counter("someone/model")("two words") == 2
    assert chat_template_tokens("someone/model") != CHAT_TEMPLATE_TOKENS
    assert {path.rpartition("/")[2] for path in hub.asked} == {
        *("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"),
    }
    asked = len(hub.asked)
    assert token_counter("someone/model")("two words") == 2
    assert len(hub.asked) == asked


def test_a_hub_that_is_down_is_asked_once(hub: type[Hub]):
    hub.is_down = True
    with pytest.raises(UserError, match="someone/model cannot be loaded from the Hugging Face hub"):
        token_counter("someone/model")
    assert [path.rpartition("/")[2] for path in hub.asked] == ["tokenizer.json"]


def test_an_estimate_goes_by_bytes_and_rounds_up():
    count = token_counter("estimate")
    assert [count(text) for text in ("", "x", "x" * 5, "x" * 6, "∑" * 5)] == [0, 1, 2, 3, 6]


def test_the_completion_and_the_chat_template_are_always_kept_free():
    window = ContextWindow(len, 1000 + 130_000 + CHAT_TEMPLATE_TOKENS, 130_000)
    assert window.limit == 1000
    assert window.fits("x" * 1000)
    assert not window.fits("x" * 1001)


def test_a_tokenizer_that_cannot_be_loaded_says_what_to_name_instead():
    with pytest.raises(UserError, match=r"/no/place cannot be loaded from .* \(.*[^.]\)\. Name another tokenizer"):
        token_counter("/no/place")


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


TEMPLATE = """\
{%- if messages[0].role == 'system' and not allow_system %}{{ raise_exception('no system message') }}{% endif -%}
{{ bos_token }}{% for message in messages %}
 words {{ message.content }} words{% generation %}{% endgeneration %}
{%- if loop.last %}{% break %}{% endif %}{% endfor %}
{%- if add_generation_prompt %} two words {{ extra }}{% endif %}"""


def with_template(folder: Path, template: Any, **settings: Any) -> str:
    config = {"bos_token": {"content": "[BOS]"}, "eos_token": None, **settings}
    if isinstance(template, str) and settings.get("in_file"):
        (folder / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("template", "settings"),
    [
        (TEMPLATE, {}),
        (TEMPLATE, {"in_file": True}),
        ([{"name": "tool_use", "template": "two"}, {"name": "default", "template": TEMPLATE}], {}),
    ],
)
def test_the_tokens_of_a_chat_template_are_counted_wherever_it_is(
    template: Any, settings: dict[str, Any], model_folder: Path
):
    # "[BOS]" is three tokens to this tokenizer, which splits at punctuation; then two words around and two after.
    place = with_template(model_folder, template, **settings)
    added = 3 + 2 + 2
    assert chat_template_tokens(place) == added + MERGED_TOKENS
    assert chat_template_tokens(str(model_folder / "tokenizer.json")) == added + MERGED_TOKENS
    assert chat_template_tokens(place, {"extra": "two words two"}) == added + 3 + MERGED_TOKENS
    assert chat_template_tokens(place, {"allow_system": True}) == added + 2 + MERGED_TOKENS


@pytest.mark.parametrize(
    "template", [None, "{{ raise_exception('never') }}", "{% unclosed", "{{ messages.append(1) }}"]
)
def test_a_tokenizer_whose_template_cannot_be_rendered_has_the_fixed_share(template: str | None, model_folder: Path):
    assert chat_template_tokens(with_template(model_folder, template)) == CHAT_TEMPLATE_TOKENS


def test_an_estimate_and_a_folder_without_a_template_have_the_fixed_share(model_folder: Path):
    assert chat_template_tokens("estimate") == CHAT_TEMPLATE_TOKENS
    assert chat_template_tokens(str(model_folder)) == CHAT_TEMPLATE_TOKENS


def test_the_share_is_what_transformers_adds():
    transformers = pytest.importorskip("transformers")
    chats = [[{"role": "user", "content": "x"}], [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]]
    tokenizer, count = transformers.AutoTokenizer.from_pretrained(POLICY), token_counter(str(POLICY))
    added = [
        len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
        - count("\n\n".join(message["content"] for message in chat))
        for chat in chats
    ]
    assert chat_template_tokens(str(POLICY)) == max(added) + MERGED_TOKENS


def test_without_a_window_limit_every_completion_has_all_its_tokens():
    window = ContextWindow(len, 1000, 300, template=10)
    assert window.limit == 690
    assert [window.max_completion("x" * n) for n in (0, 500, 690)] == [300, 300, 300]


@pytest.mark.parametrize(
    ("context", "limit", "completions"),
    [(10_000, 490, [990, 980, 500]), (600, 290, [590, 580, 300])],  # the smaller of window and context counts
)
def test_prompt_and_completion_share_the_window(context: int, limit: int, completions: list[int]):
    window = ContextWindow(len, context, 5000, max_window=1000, template=10)
    assert window.limit == limit
    assert [window.max_completion("x" * n) for n in (0, 10, limit)] == completions


def test_a_completion_that_may_be_short_leaves_the_prompt_more_of_the_window():
    window = ContextWindow(len, 10_000, 100, max_window=1000, template=10)
    assert window.limit == 890
    assert window.max_completion("x" * 890) == 100


@given(st.text(max_size=400), st.integers(1, 400), st.integers(60, 400))
def test_what_fits_leaves_room_within_the_window(prompt: str, max_tokens: int, size: int):
    window = ContextWindow(token_counter("estimate"), 300, max_tokens, max_window=size, template=20)
    if window.fits(prompt):
        completion = window.max_completion(prompt)
        assert 1 <= completion <= max_tokens
        assert window.count(prompt) + completion + 20 <= min(size, 300)


def test_a_window_without_room_for_a_prompt_is_refused_with_all_numbers():
    with pytest.raises(UserError, match=r"max_tokens=50 .*context_length=8192 tokens and model\.max_window_tokens=100"):
        ContextWindow(len, 8192, 50, max_window=100)
