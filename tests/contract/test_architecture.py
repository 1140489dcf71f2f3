"""What holds across the project: light imports without side effects, configs that agree with the code, clean files."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tmas.methods import METHODS
from tmas.settings import ROLES, ModelSettings, RoleOverride, ServingSettings, SolveSettings

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
ROOMS = """
tmas/errors.py         UserError, the mistake that a user can correct
tmas/files.py          JSON lines, files written in one step, digests
tmas/redaction.py      removes keys and control characters from texts that leave the process
tmas/records/          every value that travels between modules or lies on disk
tmas/concurrency.py    slots by priority, small helpers over asyncio
tmas/prompts/          one .jinja per role, the schemas of what models reply, and its parsing
tmas/memory/           the banks, and the test for near-duplicates
tmas/answers/          the final answer, and whether two are equal
tmas/problems/         problem files, and benchmarks of the Hugging Face hub
tmas/llm/              the client of chat servers
tmas/agents/           the session that methods see, prompts that fit, the team
tmas/methods/          TMAS and the baselines
tmas/settings/         all settings of a run
tmas/judge.py          one question to an LLM judge
tmas/engines/          processes that serve models
tmas/run/              session, trace, budget and run directory; what solves problems
tmas/rewards/          the hybrid reward
tmas/evaluation/       scores of finished runs
tmas/serve/            the OpenAI-compatible server
tmas/report/           the HTML report
tmas/training/         training rows, export
tmas/training/rl/      reinforcement learning over verl
tmas/training/sft/     supervised fine-tuning with DeepSpeed
tmas/miniature/        the tiny trained policy, and the figures of its demo
tmas/api.py            the Python API
data_prep/             from public problems to training rows
tmas/cli/              the commands
tmas/testing/          what tests and benchmarks share
tmas/__init__.py       the names that users import
"""
"""The rooms from the ground up: a module imports only from its own room and from rooms that this table lists before."""
ORDER = {line.split()[0]: place for place, line in enumerate(ROOMS.strip().splitlines())}
LIGHT = [*list(ORDER)[: list(ORDER).index("tmas/engines/")], "tmas/rewards/"]
"""Rooms that load no heavy package."""
HEAVY = ("torch", "vllm", "verl", "ray", "transformers")
IN_A_TRAINER = {
    *("rl.checkpoint_callback", "rl.liveness", "rl.task_runner", "rl.trainer"),  # loaded by verl
    *("rl.cpu", "rl.cpu_vllm", "rl.reward_manager"),  # loaded by verl and vLLM
    # subclasses and functions of torch's and transformers' own
    *("sft.chunked_loss", "sft.grouping", "sft.optimizer", "sft.progress", "sft.trainer"),
}
"""Modules of tmas/training that only a trainer's process loads: they import torch, verl or transformers."""
ON_A_CLUSTER = {"tmas.engines.replicas", "tmas.run.ray_actor", "tmas.run.ray_workers"}
"""Imported once a run asks for Ray: its own import binds a port, to see whether there is IPv6."""
FILES = {
    ".".join((package, *file.relative_to(ROOT / top).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): file.relative_to(ROOT)
    for top, package in (("tmas", "tmas"), ("data_prep", "tmas.data_prep"))  # tmas/data_prep is a link
    for file in sorted((ROOT / top).rglob("*.py"))
}
"""Every module with its file."""
MODULES = [name for name in FILES if name not in {f"tmas.training.{m}" for m in IN_A_TRAINER} | ON_A_CLUSTER]


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- imports


def room_of(module: str) -> str:
    """The line of :data:`ROOMS` that ``module`` belongs to: the longest that its path begins with."""
    path = FILES[module].as_posix()
    rooms = [room for room in ORDER if path == room or (room.endswith("/") and path.startswith(room))]
    assert rooms, f"{path} is in none of the rooms"
    return max(rooms, key=len)


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each import, in functions too; those under TYPE_CHECKING are left out."""
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"line {node.lineno}: a relative import"
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
        left += ast.iter_child_nodes(node)


@functools.cache
def imported_modules(module: str) -> tuple[tuple[int, str], ...]:
    """Line and module of each import of the project's own in ``module``; of a name it is the module that holds it."""
    found = imports((ROOT / FILES[module]).read_text("utf-8"))
    owners = ((line, name if name in FILES else name.rpartition(".")[0]) for line, name in found)
    return tuple((line, owner) for line, owner in owners if owner in FILES)


def test_every_module_has_a_room_and_every_room_a_module():
    assert {room_of(module) for module in FILES} == set(ORDER)


def test_no_import_points_to_a_higher_room():
    upward = [
        f"{FILES[module]}:{line}: {room_of(module)} imports from {room_of(other)}, a higher room ({other})"
        for module in FILES
        for line, other in imported_modules(module)
        if ORDER[room_of(other)] > ORDER[room_of(module)]
    ]
    assert not upward, "\n".join(upward)


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: {other for _, other in imported_modules(module)} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_an_import_counts_in_a_function_but_not_for_types_alone():
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d, e\n"
    assert sorted(imports(source)) == [(4, "b"), (6, "c.d"), (6, "c.e")]


def test_no_two_classes_share_a_name():
    classes: dict[str, list[str]] = {}
    for module, file in FILES.items():
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name.lstrip("_"), []).append(f"{module}.{node.name}")
    shared = {name: places for name, places in classes.items() if len(places) > 1}
    assert not shared, f"each class needs a name of its own: {shared}"


def test_benchmarks_and_recipes_import_no_tests():
    files = [file for top in ("benchmarks", "recipes") for file in (ROOT / top).rglob("*.py")]
    found = [(file, name) for file in files for _, name in imports(file.read_text("utf-8"))]
    assert found
    assert [(file, name) for file, name in found if name.split(".")[0] == "tests"] == []


def test_the_core_imports_nothing_heavy():
    light = [module for module in FILES if room_of(module) in LIGHT]
    assert {room_of(module) for module in light} == set(LIGHT)
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
    """``GROUP=NAME`` for each file of each group of ``tmas solve``."""
    folders = {group: CONF / "solve" / group if group == "experiment" else CONF / group for group in groups}
    found = sorted(f"{group}={file.stem}" for group, folder in folders.items() for file in folder.glob("*.yaml"))
    assert {option.partition("=")[0] for option in found} == set(groups)
    return found


def test_a_composed_run_has_the_defaults_of_the_code():
    settings = SolveSettings.model_validate(composed("model.name=m", "model.base_url=http://h/v1"))
    assert settings == SolveSettings(
        problems=Path("p.jsonl"),
        output_dir=Path("runs/x"),
        model=ModelSettings(name="m", base_url="http://h/v1", roles=dict.fromkeys(ROLES, RoleOverride())),
        prices=settings.prices,  # conf/prices has the table
    )
    assert all(price.is_known and price.host and price.as_of for price in settings.prices.values())
    assert settings.prices


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
        ("genselect", "comparison", {"temperature": 0.6, "top_p": 0.95}),
        ("pacore", "solution", {"temperature": 1.0, "top_p": 1.0}),
        ("rsa", "solution", {"temperature": 1.0, "top_p": 1.0}),
        ("rse", "solution", {"temperature": 0.6, "top_p": 0.95, "extra": {"top_k": 20}}),
        ("self_refine", "feedback", {"temperature": 0.7}),
        ("verify_refine", "solution", {"temperature": 1.0, "top_p": 0.95}),
    ],
)
def test_a_method_s_config_sets_its_published_sampling(name: str, role: str, published: dict[str, Any]):
    given = ("model=deepseek", f"method={name}", "model.sampling.max_tokens=7")
    sampling = SolveSettings.model_validate(composed(*given)).model.for_role(role).sampling
    found = sampling.model_dump()
    found["extra"] = {key: found["extra"].get(key) for key in published.get("extra", {})}  # the preset adds others
    assert published.items() <= found.items()
    assert sampling.max_tokens == 7


def test_the_server_config_shows_every_setting():
    written = yaml.safe_load((CONF / "serving/vllm.yaml").read_text("utf-8"))
    defaults = ServingSettings(name="vllm").model_dump(mode="json")
    assert written | {"args": {}} == defaults


@pytest.mark.parametrize("option", options("model", "data", "serving", "prices", "method", "experiment"))
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


def lint(tool: str, checked: list[Path]) -> None:
    """Run a linter of the dev dependencies, pytest's own group: where it is missing, a test must not pass or skip."""
    done = subprocess.run([Path(sys.executable).with_name(tool), *checked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_finds_nothing():
    scripts = [file for file in files() if re.match(rb"#!.*\b(ba)?sh\n", file.read_bytes())]
    known = {".ci/run", "docker/install_gpu.sh", "examples/train_the_miniature.sh", "recipes/slurm/train.sbatch"}
    assert {str(file.relative_to(ROOT)) for file in scripts} >= known
    lint("shellcheck", scripts)


def test_hadolint_finds_nothing():
    dockerfiles = [file for file in files() if file.suffix == ".Dockerfile"]
    assert {file.stem for file in dockerfiles} == {"serve", "train"}
    lint("hadolint", dockerfiles)
