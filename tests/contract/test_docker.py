"""docker/: what the images install. No image can be built here: the files are read, the script runs with stand-ins."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(ROOT.glob("docker/*.Dockerfile"))
RDMA = {"libibverbs1", "ibverbs-providers", "librdmacm1", "libnuma1"}
UV = """\
#!/bin/sh
echo "uv $*" >> "$CALLS"
case "$*" in *"-r -"*) cat > "$CALLS.wheels" ;; *--no-build\\ *) exit "$NO_WHEEL" ;; esac
"""
PYTHON = """\
#!/bin/sh
exit "$NOT_LOADED"
"""


def pins(lock: str) -> dict[str, str]:
    """The versions in a lock, by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "locks" / lock).read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)
def test_nccl_finds_infiniband(dockerfile: Path):
    installed = re.search(
        r"apt-get install -y --no-install-recommends (.*?)&&", dockerfile.read_text("utf-8"), re.DOTALL
    )
    assert installed
    assert set(installed[1].split()) >= RDMA


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)
def test_the_base_image_has_the_cuda_of_the_lock(dockerfile: Path):
    base = re.search(
        r"^FROM nvidia/cuda:(\d+\.\d+)\.\d+-\w+-ubuntu24\.04$", dockerfile.read_text("utf-8"), re.MULTILINE
    )
    assert base
    cuda = pins("serve.txt" if dockerfile.stem == "serve" else "gpu.txt")["nvidia-cuda-runtime"]
    assert cuda.startswith(f"{base[1]}.")


def test_the_lock_for_serving_has_the_vllm_of_the_extra_and_no_trainer():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    serve, gpu = pins("serve.txt"), pins("gpu.txt")
    assert {f"ray[default]=={serve['ray']}", f"vllm=={serve['vllm']}"} == set(extras["serve"])
    assert not {"verl", "flash-attn", "deepspeed", "transferqueue", "trl"} & serve.keys()
    assert [int(part) for part in serve["vllm"].split(".")] > [int(part) for part in gpu["vllm"].split(".")]
    assert serve["ray"] == gpu["ray"]  # a cluster may have nodes with either image


def test_the_lock_for_serving_has_all_that_the_project_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    needed = {re.split(r"[\[<>=]", requirement)[0] for requirement in project}
    assert needed <= pins("serve.txt").keys()


def install(folder: Path, **environment: str) -> list[str]:
    """Run docker/install_gpu.sh with stand-ins. Returns the calls of ``uv``.

    ``NO_WHEEL``: exit status of the installation without a build. ``NOT_LOADED``: that of the import.
    """
    for name, text in (("uv", UV), ("python", PYTHON)):
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    outside = {key: value for key, value in os.environ.items() if key != "FLASH_ATTN_INDEX"}
    given = {"NO_WHEEL": "0", "NOT_LOADED": "0", **environment}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    calls = folder / "calls"
    subprocess.run(
        [ROOT / "docker" / "install_gpu.sh"], check=True, env={**outside, **given, "PATH": path, "CALLS": str(calls)}
    )
    return calls.read_text().splitlines()


COMPILED = "uv pip install --no-deps --no-build-isolation --reinstall flash-attn==2.8.3"


def test_everything_is_installed_and_flash_attn_from_a_wheel(tmp_path: Path):
    lock, deepspeed, wheel = install(tmp_path)
    assert lock == "uv pip install --no-deps -r - wheel==0.45.1"
    assert deepspeed == f"uv pip install --no-deps --no-build-isolation deepspeed=={pins('gpu.txt')['deepspeed']}"
    assert re.fullmatch(r"uv pip install .*--no-build --default-index https://\S+/cu130/torch2\.11/simple/ \S+", wheel)
    assert wheel.endswith(f" flash-attn=={pins('gpu.txt')['flash-attn']}")
    first = dict(re.findall(r"^([\w.-]+)==(\S+)", (tmp_path / "calls.wheels").read_text(), re.MULTILINE))
    assert first == {name: pin for name, pin in pins("gpu.txt").items() if name not in ("flash-attn", "deepspeed")}


@pytest.mark.parametrize("why", ["NO_WHEEL", "NOT_LOADED"])
def test_flash_attn_is_compiled_if_no_wheel_loads(why: str, tmp_path: Path):
    *_, wheel, compiled = install(tmp_path, **{why: "1"})
    assert "--no-build " in wheel
    assert compiled == COMPILED


def test_flash_attn_is_compiled_if_the_index_is_empty(tmp_path: Path):
    _, _, compiled = install(tmp_path, FLASH_ATTN_INDEX="")
    assert compiled == COMPILED


def test_the_image_takes_the_same_wheel_as_the_script():
    script, image = ((ROOT / "docker" / name).read_text("utf-8") for name in ("install_gpu.sh", "train.Dockerfile"))
    [index] = re.findall(r"^ARG FLASH_ATTN_INDEX=(\S+)$", image, re.MULTILINE)
    assert f"FLASH_ATTN_INDEX={index}}}" in script
    torch = ".".join(pins("gpu.txt")["torch"].split(".")[:2])
    assert f"torch{torch}/" in index
