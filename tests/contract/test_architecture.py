"""What holds across the project: light imports without side effects, configs that agree with the code, clean files."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import data_prep
import tmas
from tmas.methods import METHODS
from tmas.settings import ROLES, ModelSettings, RoleOverride, ServingSettings, SolveSettings

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
LIGHT = (
    *(
        "records",
        "files",
        "concurrency",
        "prompts",
        "memory",
        "answers",
        "problems",
        "llm",
        "agents",
        "methods",
        "settings",
    ),
    *("judge", "rewards"),
)
HEAVY = ("torch", "vllm", "verl", "ray", "transformers")
IN_A_TRAINER = {
    *("rl.cpu", "rl.cpu_vllm", "rl.reward_manager", "rl.task_runner", "rl.trainer"),  # loaded by verl and vLLM
    *("sft.optimizer", "sft.progress", "sft.trainer"),  # subclasses of torch's and transformers' own
}
"""Modules of tmas/training that only a trainer's process loads: they import torch, verl or transformers."""
ON_A_CLUSTER = {"tmas.engines.replicas", "tmas.run.ray_workers"}
"""Imported once a run asks for Ray: its own import binds a port, to see whether there is IPv6."""
MODULES = [
    m.name
    for package in (tmas, data_prep)
    for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if m.name not in {f"tmas.training.{name}" for name in IN_A_TRAINER} | ON_A_CLUSTER
]


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- imports


def test_the_core_imports_nothing_heavy():
    light = [m for m in MODULES if m.split(".")[1] in LIGHT]
    assert {m.split(".")[1] for m in light} == set(LIGHT)
    code = (
        f"import importlib, sys; [importlib.import_module(m) for m in {light}];"
        f"print(*(m for m in {HEAVY} if m in sys.modules))"
    )
    assert python(code) == "\n"


WATCH = """
import importlib, logging, os, sys, threading

EFFECTS = ("socket.connect", "socket.bind", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir")

def refuse(event, arguments):
    if event.startswith(EFFECTS):
        raise SystemExit(f"an import did {event} {arguments}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise SystemExit(f"an import wrote {arguments[0]}")

sys.dont_write_bytecode = True
environment, folder, arguments = dict(os.environ), os.getcwd(), list(sys.argv)
sys.addaudithook(refuse)
for module in MODULES:
    importlib.import_module(module)
assert threading.active_count() == 1, threading.enumerate()
assert (dict(os.environ), os.getcwd(), sys.argv) == (environment, folder, arguments)
from hydra.core.global_hydra import GlobalHydra
assert not GlobalHydra.instance().is_initialized()
assert not logging.getLogger().handlers
print("quiet")
"""


def test_importing_everything_does_nothing():
    assert python(f"MODULES = {MODULES}\n{WATCH}") == "quiet\n"


# --- configs


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("solve", overrides=["problems=p.jsonl", "output_dir=runs/x", *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return plain


def options(*groups: str) -> Iterable[str]:
    return sorted(f"{group}={file.stem}" for group in groups for file in (CONF / group).glob("*.yaml"))


def test_a_composed_run_has_the_defaults_of_the_code():
    settings = SolveSettings.model_validate(composed("model.name=m", "model.base_url=http://h/v1"))
    assert settings == SolveSettings(
        problems=Path("p.jsonl"),
        output_dir=Path("runs/x"),
        model=ModelSettings(name="m", base_url="http://h/v1", roles=dict.fromkeys(ROLES, RoleOverride())),
    )


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("model/endpoint", ModelSettings(name="???").model_dump(mode="json", exclude={"roles"})),
        ("roles/inherit", {role: RoleOverride().model_dump(mode="json") for role in ROLES}),
    ],
)
def test_a_config_file_shows_every_setting_with_its_default(file: str, expected: dict[str, Any]):
    written = yaml.safe_load((CONF / f"{file}.yaml").read_text("utf-8"))
    written.pop("defaults", None)
    assert written == expected


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_config_shows_every_setting_with_its_default(name: str):
    settings: Any = METHODS[name].settings_type
    assert composed(f"method={name}", "model.name=m")["method"] == settings().model_dump(mode="json")


@pytest.mark.parametrize(
    ("name", "role", "published"),
    [
        ("pacore", "solution", {"temperature": 1.0, "top_p": 1.0}),
        ("rse", "solution", {"temperature": 0.6, "top_p": 0.95, "extra": {"top_k": 20}}),
        ("self_refine", "feedback", {"temperature": 0.7}),
        ("verify_refine", "solution", {"temperature": 1.0, "top_p": 0.95}),
    ],
)
def test_a_method_s_config_sets_its_published_sampling(name: str, role: str, published: dict[str, Any]):
    given = ("model=deepseek", f"method={name}", "model.sampling.max_tokens=7")
    sampling = SolveSettings.model_validate(composed(*given)).model.for_role(role).sampling
    assert published.items() <= sampling.model_dump().items()
    assert sampling.max_tokens == 7


def test_the_server_config_shows_every_setting():
    written = yaml.safe_load((CONF / "serving/vllm.yaml").read_text("utf-8"))
    defaults = ServingSettings(name="vllm").model_dump(mode="json")
    assert written | {"args": {}} == defaults


def of_solve(option: str) -> bool:
    """The experiments of `tmas train` have a test of their own: tests/contract/test_train_configs.py."""
    return not option.startswith("experiment=") or not any(word in option for word in ("grpo", "ppo"))


@pytest.mark.parametrize(
    "option", [o for o in options("model", "data", "serving", "method", "experiment") if of_solve(o)]
)
def test_every_config_composes_into_a_valid_run(option: str):
    settings = composed(option, "++model.name=m", "++model.base_url=http://h/v1", "++model.path=folder")
    assert SolveSettings.model_validate(settings).model.for_role("guideline").name == "m"


@pytest.mark.parametrize("option", [o for o in options("model") if o != "model=endpoint"])
def test_every_named_model_says_what_it_is(option: str):
    config = composed(option, "++model.base_url=http://h/v1")["model"]
    model = ModelSettings.model_validate(config)
    assert model.context_length is not None
    assert model.sampling.max_tokens < model.context_length


# --- files


def files() -> Iterator[Path]:
    """Tracked files, and those that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    yield from (ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def test_no_file_names_a_package_registry_or_a_place_on_one_machine():
    forbidden = [a + b for a, b in (("pypi", ".org"), ("files.python", "hosted"), ("/ro", "ot/"), ("/op", "t/"))]
    checked = [(file, file.read_bytes()) for file in files()]
    assert len(checked) > 50
    assert [f"{file}: {word}" for file, text in checked for word in forbidden if word.encode() in text] == []
