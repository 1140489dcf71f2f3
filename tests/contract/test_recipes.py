"""The launch scripts and images: short, and every key that they give exists. None of them is run for real.

Each script runs with stand-ins for the programs that it calls; they write down how they were called.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.support.composing import composed
from tmas.serve.settings import ServeSettings
from tmas.settings import Settings, SolveSettings
from tmas.training.export import ExportSettings
from tmas.training.rl.checks import check_settings
from tmas.training.rl.inputs import REWARD_KEY
from tmas.training.sft.settings import SFTSettings

pytest.importorskip("verl", reason="needs the cpu or gpu extra")

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    {*ROOT.glob("recipes/**/*.sh"), *ROOT.glob("recipes/**/*.sbatch")} - {*ROOT.glob("recipes/miniature/*.sh")}
)
DOCKERFILES = sorted(ROOT.glob("docker/*.Dockerfile"))
REQUIRED = {
    "BENCHMARKS": "benchmarks",
    "PROBLEMS": "problems.jsonl",
    "JUDGE_URL": "http://judge/v1",
    "HEAD": "node-1",
    "BASE_URL": "http://server/v1",
}
SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_NODEID": "1"}
RAY_ALONE = ("recipes/multi_node/cluster.sh", "recipes/multi_node/worker.sh")
"""Scripts that start Ray and run no ``tmas``."""
SETTINGS: dict[str, type[Settings]] = {
    **{"solve": SolveSettings, "serve": ServeSettings},
    **{"sft": SFTSettings, "export": ExportSettings},
}
STAND_IN = """\
#!{python}
import json, os, sys, time
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, *arguments]) + "\\n")
if name == "srun":  # what comes after the options is run
    while arguments[0].startswith("--"):
        arguments.pop(0)
    os.execvp(arguments[0], arguments)
if "dry_run=refused" in arguments:
    sys.exit(2)
if name == "scontrol":
    print("node-1")
if name == "python" and arguments[1:2] and arguments[1] in ("recipes.miniature.server", "recipes.miniature.prepare"):
    os.execv(sys.executable, [sys.executable, *arguments])  # the miniature's own: they take a second
if arguments[:1] == ["list"]:
    while '"--head"' not in open(os.environ["CALLS"]).read():  # there are nodes once the head has started
        time.sleep(0.01)
    print("\\n".join('"node_id": "x"' for _ in range(4)))
"""


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


def run(script: str, folder: Path, *arguments: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    """``script`` with stand-ins for the programs that it calls."""
    for name in ("tmas", "torchrun", "vllm", "ray", "srun", "scontrol", "python", "curl", "inspect"):
        (folder / name).write_text(STAND_IN.format(python=sys.executable))
        (folder / name).chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        **({} if script.endswith("multi_node/worker.sh") else SLURM),
        **REQUIRED,
        **({"OUT": str(folder / "out")} if script == "recipes/adaptive/run.sh" else {}),  # it makes the folder
        **knobs,
    }
    command = [ROOT / script, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def calls(script: str, folder: Path, *arguments: str, **knobs: str) -> list[list[str]]:
    """How ``script`` calls other programs, in order of the calls."""
    done = run(script, folder, *arguments, **knobs)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def commands(made: list[list[str]], dry_run: str = "false") -> list[tuple[str, list[str]]]:
    """The ``tmas`` commands among them, with their overrides. ``dry_run="true"``: those that only check settings."""
    found = [call[1:] for call in made if call[0] == "tmas"]
    found = [words for words in found if ("dry_run=true" in words) == (dry_run == "true")]
    found += [call[call.index("tmas.cli") + 1 :] for call in made if call[0] == "torchrun"]
    return [(words[0], words[1:]) for words in found]


def composes(command: str, overrides: list[str]) -> None:
    """Fails where a key is unknown, or where the settings of a command that has checks of its own are refused."""
    config = composed(command, *overrides)
    if command in SETTINGS:
        SETTINGS[command].model_validate(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    if command == "train":
        config.trainer.experiment_name = "test"  # Hydra's run-time value is not there outside of a run
        assert not OmegaConf.missing_keys(config)
        assert not list(check_settings(config))


@pytest.mark.parametrize("script", names(SCRIPTS))
def test_every_key_that_a_script_gives_exists_and_further_ones_reach_the_last_command(script: str, tmp_path: Path):
    more = {"sft": "seed=7", "train": "data.seed=7", "solve": "seed=7"}
    made = calls(script, tmp_path)
    assert bool(commands(made)) == (script not in RAY_ALONE)
    for command, overrides in commands(made):
        composes(command, overrides)
    last = [command for command, _ in commands(made) if command in more]
    if last:
        (tmp_path / "calls").unlink()
        given = calls(script, tmp_path, more[last[-1]])
        assert any(more[last[-1]] in overrides for command, overrides in commands(given) if command == last[-1])


def test_the_readme_s_example_of_a_further_setting_is_a_training_that_begins(tmp_path: Path):
    [example] = re.findall(r"recipes/hybrid_grpo/run\.sh (data\.\S+)`", (ROOT / "recipes/README.md").read_text())
    [(command, overrides)] = commands(calls("recipes/hybrid_grpo/run.sh", tmp_path, example))
    assert example in overrides
    composes(command, overrides)


def test_another_run_is_exported_to_another_folder_and_a_folder_that_exists_is_reported(tmp_path: Path):
    step = "a/checkpoints/global_step_5"
    exported = [o for _, o in commands(calls("recipes/export/run.sh", tmp_path, RUN=f"runs/{step}"))]
    exported += [o for _, o in commands(calls("recipes/export/run.sh", tmp_path))[1:]]
    assert exported == [
        [f"checkpoint=runs/{step}", "output_dir=models/a-checkpoints-global_step_5"],
        ["checkpoint=runs/hybrid_grpo", "output_dir=models/hybrid_grpo"],
    ]
    (tmp_path / "calls").unlink()
    done = run("recipes/export/run.sh", tmp_path, MODEL=str(tmp_path))
    assert f"{tmp_path} exists: it is served as it is" in done.stderr
    [[name, *_]] = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert name == "vllm"


@pytest.mark.parametrize("script", ["recipes/evaluate/run.sh", "recipes/distill/run.sh", "recipes/solve_ray/run.sh"])
def test_replicas_share_the_gpus(script: str, tmp_path: Path):
    done = run(script, tmp_path, GPUS="8", TENSOR_PARALLEL="2")
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    served = [overrides for _, overrides in commands(made) if "serving=vllm" in overrides]
    assert served
    assert all({"serving.replicas=4", "serving.tensor_parallel_size=2"} <= set(overrides) for overrides in served)


def test_a_slurm_job_is_a_ray_cluster_with_the_training_on_its_first_node(tmp_path: Path):
    made = calls("recipes/slurm/train.sbatch", tmp_path)
    starts = [call for call in made if call[:2] == ["ray", "start"]]
    assert [call for call in starts if "--head" in call]
    [training] = [overrides for command, overrides in commands(made) if command == "train"]
    assert {"trainer.nnodes=2", "trainer.n_gpus_per_node=8"} <= set(training)


def test_a_slurm_job_solves_with_vllm_on_all_its_gpus(tmp_path: Path):
    made = calls("recipes/slurm/solve.sbatch", tmp_path)
    assert [call for call in made if call[:2] == ["ray", "start"] and "--head" in call]
    [solving] = [overrides for command, overrides in commands(made) if command == "solve"]
    assert {"serving.replicas=8", "serving.tensor_parallel_size=2", "ray.address=auto"} <= set(solving)


@pytest.mark.parametrize("script", ["recipes/slurm/train.sbatch", "recipes/slurm/solve.sbatch"])
def test_a_slurm_job_starts_one_program_a_node(script: str, tmp_path: Path):
    """srun would take the number of tasks from the job, for however few nodes it is given."""
    steps = [dict(word.split("=") for word in call if word[:2] == "--" and "=" in word)
             for call in calls(script, tmp_path) if call[0] == "srun"]  # fmt: skip
    assert len(steps) == 2
    assert all(step["--ntasks"] == step["--nodes"] == "1" for step in steps)


def test_a_cluster_whose_head_ends_is_not_waited_for(tmp_path: Path):
    done = run("recipes/solve_ray/head.sh", tmp_path, NODES="9")
    assert done.returncode != 0
    assert "tmas" not in (tmp_path / "calls").read_text()


def test_one_node_solves_with_vllm_on_all_its_gpus(tmp_path: Path):
    [(_, overrides), _] = commands(calls("recipes/solve_ray/run.sh", tmp_path))
    assert {"serving.replicas=4", "serving.tensor_parallel_size=2"} <= set(overrides)
    assert not any(override.startswith("ray.address") for override in overrides)


def test_the_sweep_gives_every_method_the_same_budget_compares_them_at_it_and_reports_them(tmp_path: Path):
    *solving, (_, evaluation), (last, report) = commands(calls("recipes/sweep/run.sh", tmp_path))
    assert [next(o for o in overrides if o.startswith("method=")) for _, overrides in solving] == [
        f"method={name}"
        for name in (
            "tmas",
            "majority_vote",
            "best_of_n",
            "genselect",
            "self_refine",
            "verify_refine",
            "pacore",
            "rse",
            "rsa",
        )
    ]
    assert all("limits.tokens_per_problem=20000000" in overrides for _, overrides in solving)
    assert evaluation[1] == "budgets=[5000000,10000000,20000000]"
    assert (last, evaluation[0]) == ("report", report[0])
    assert evaluation[0].count("runs/sweep/") == len(solving)


def test_nodes_of_a_slurm_job_meet_at_the_first_node_in_the_cold_start(tmp_path: Path):
    [torchrun] = [call for call in calls("recipes/slurm/sft.sbatch", tmp_path) if call[0] == "torchrun"]
    rendezvous = {"--rdzv-backend=c10d", "--rdzv-endpoint=node-1:29500", "--rdzv-id=tmas-sft-77"}
    assert {"--nnodes=2", "--nproc-per-node=8", *rendezvous} <= set(torchrun)
    assert not any(word.startswith("--local-addr") for word in torchrun)  # torchrun finds each node's address


def test_a_single_node_of_the_cold_start_uses_loopback(tmp_path: Path):
    [torchrun] = calls("recipes/sft/run.sh", tmp_path, HEAD="127.0.0.1")
    assert {"--nnodes=1", "--rdzv-endpoint=127.0.0.1:29500", "--local-addr=127.0.0.1"} <= set(torchrun)


@pytest.mark.parametrize("script", names(SCRIPTS))
def test_a_script_is_short_executable_and_clean(script: str):
    path = ROOT / script
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) < 30
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert '"$@"' in path.read_text("utf-8")
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)


SOLVE = (ROOT / "recipes/miniature/solve.sh").read_text("utf-8")
MINIATURE_METHODS = re.findall(r"^    \[(\w+)\]=", SOLVE, re.MULTILINE)
UNTRAINED = {"rsa", "genselect"}
"""Methods that the teacher plays and whose prompts no policy of the recipe is trained on."""


def test_every_key_and_method_that_the_miniature_gives_exists_and_it_does_not_go_on_with_other_sizes(tmp_path: Path):
    forms = "vanilla hybrid hybrid_additive hybrid_verification"
    sizes = {"TRAIN": "2", "EASY": "2", "TEST": "2", "FORMS": forms, "OUT": str(tmp_path / "out")}
    done = run("recipes/miniature/run.sh", tmp_path, **sizes)
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    for name in ("TEST", "OWN", "VERIFICATIONS"):
        again = run("recipes/miniature/run.sh", tmp_path, **sizes | {name: "3"})
        assert again.returncode == 2
        assert "was started with TRAIN=2" in again.stderr
        assert f"{name}=3" in again.stderr
    found = commands(made)
    started = [call[call.index("tmas.cli") + 1 :] for call in made if call[0] == "python" and "tmas.cli" in call]
    found += [(command, overrides) for command, *overrides in started]
    for command, overrides in found:
        composes(command, overrides)
    assert Counter(command for command, _ in found) == {
        **{"distill": 3, "solve": 10, "build": 10, "sft": 4, "train": 12, "export": 12, "evaluate": 3, "report": 3}
    }
    assert {kind_of(overrides) for command, overrides in found if command == "train"} == {
        ("vanilla", "decoupled", "none", False),
        ("hybrid", "decoupled", "none", False),
        ("hybrid", "additive", "none", False),
        ("hybrid", "decoupled", "judge", True),
    }
    served = [call for call in made if "recipes.miniature.serving" in call]
    runs = [word.rpartition("-") for call in served for word in call[call.index("recipes/miniature/solve.sh") + 4 :]]
    assert len(served) == 1 + 2 + 1 + 12  # gates, test problems, problems for verification rows, trained policies
    assert {method for method, _, _ in runs} == {*MINIATURE_METHODS} - UNTRAINED
    assert {seed for _, _, seed in runs} == {"0", "1", "2"}


def test_a_miniature_of_an_older_version_is_resumed_with_the_knobs_that_it_recorded(tmp_path: Path):
    """Each start fails at its first program, after the knobs were compared: the stand-ins cannot write their calls."""
    given = {"OUT": str(tmp_path / "out"), "CALLS": str(tmp_path / "missing" / "calls")}
    assert run("recipes/miniature/run.sh", tmp_path, **given).returncode == 1
    knobs = tmp_path / "out" / "knobs"
    older, _, _ = (written := knobs.read_text()).partition(" OWN=")
    knobs.write_text(f"{older}\n")
    assert run("recipes/miniature/run.sh", tmp_path, **given).returncode == 1
    assert knobs.read_text() == written
    knobs.write_text(f"{older[:-1]}\n")  # another number that begins with the same digits
    assert run("recipes/miniature/run.sh", tmp_path, **given).returncode == 2


def kind_of(overrides: list[str]) -> tuple[str, str, str, bool]:
    """What a training of the miniature differs in: the reward, the advantage, the critique's bonus, and more rows."""
    given = dict(override.split("=", 1) for override in overrides)
    reward = f"{REWARD_KEY}."
    return (
        given["reward"],
        given.get(f"{reward}advantage.form", "decoupled"),
        given.get(f"{reward}verification.form", "none"),
        "rows_verification" in given["data.train_files"],
    )


def test_every_method_of_the_miniature_composes(tmp_path: Path):
    given = ("policy", "out", "problems.jsonl", *(f"{method}-3" for method in MINIATURE_METHODS))
    made = calls("recipes/miniature/solve.sh", tmp_path, *given, MODEL_URL="http://server/v1", MODEL_NAME="sft")
    assert len(MINIATURE_METHODS) == len(made) > 10
    for (command, overrides), method in zip(commands(made), MINIATURE_METHODS, strict=True):
        composes(command, overrides)
        assert {"seed=3", "model.name=sft", "model.tokenizer=policy", f"output_dir=out/{method}-3"} <= set(overrides)


def test_the_compose_file_names_what_there_is():
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker" / "compose.yaml").read_text("utf-8"))
    services = yaml.safe_load(text)["services"]
    assert services.keys() == {"serve", "tmas", "solve", "train"}
    for service in services.values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    for name in ("tmas", "solve"):
        _, command, *overrides = services[name]["entrypoint"]
        composes(command, [*overrides, *services[name]["command"]])


def test_the_kuberay_job_runs_a_command_that_composes_on_a_cluster_that_has_what_it_asks_for():
    """The fields are those of KubeRay's v1 API, where pods are what Kubernetes takes."""
    job = manifest("kuberay/solve.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    known = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
    assert job["spec"].keys() == known
    cluster, [program, command, *overrides] = job["spec"]["rayClusterSpec"], job["spec"]["entrypoint"].split()
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "locks" / "gpu.txt").read_text("utf-8")
    assert (program, command) == ("tmas", "solve")
    composes(command, overrides)
    [workers] = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    gpus = workers["replicas"] * int(pod(workers)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert {f"serving.replicas={gpus // 2}", "serving.tensor_parallel_size=2", "ray.address=auto"} <= set(overrides)


def test_the_pods_of_the_kuberay_job_share_storage_and_hold_no_secret_of_their_own():
    cluster, claim = manifest("kuberay/solve.yaml")["spec"]["rayClusterSpec"], manifest("kuberay/storage.yaml")
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        [container], [volume] = pod(group)["containers"], pod(group)["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]
        environment = {variable["name"]: variable for variable in container["env"]}
        assert environment["HF_HOME"]["value"].startswith("/shared/")
        assert environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"].keys() == {"name", "key", "optional"}


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes" / name).read_text("utf-8"))


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def test_the_images_have_the_versions_of_the_locks():
    gpu, cpu = ((ROOT / "locks" / name).read_text("utf-8") for name in ("gpu.txt", "cpu.txt"))
    [uv] = re.findall(r"^uv==(\S+)", cpu, re.MULTILINE)
    assert {dockerfile.stem for dockerfile in DOCKERFILES} == {"serve", "train"}
    for dockerfile in DOCKERFILES:
        assert f"ARG UV_VERSION={uv}\n" in dockerfile.read_text("utf-8")
        lock = "locks/serve.txt" if dockerfile.stem == "serve" else "locks/gpu.txt"
        assert f"COPY {lock} {lock}\n" in dockerfile.read_text("utf-8")
    named = re.findall(
        r"(torch|vLLM|verl|DeepSpeed|flash-attn) (\d[\d.]+\d)[,)]", (ROOT / "docker" / "README.md").read_text()
    )
    assert len(named) == 5
    for package, version in named:
        assert re.search(rf"^{package.lower()}=={re.escape(version)} ", gpu, re.MULTILINE)
