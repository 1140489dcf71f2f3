"""A user's prompts wherever prompts are rendered: solve, serve, build, evaluate, train, Ray's workers, the report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from tests.support.commands import tmas, tmas_process
from tests.support.data_steps import distill_settings, problem_file, runner, silent
from tests.support.rewards import extra_info
from tests.support.rewards import settings as reward_settings
from tests.support.runs import candidate, iteration, prediction, write_run
from tests.support.serving import runs_in, served
from tests.support.synthetic_training import make as make_training
from tmas import asolve_all
from tmas.data_prep.build import build
from tmas.data_prep.build_settings import BuildSettings
from tmas.data_prep.distill import distill
from tmas.data_prep.pool import read_problems
from tmas.errors import UserError
from tmas.evaluation.evaluate import EvaluateSettings, evaluate
from tmas.methods import METHODS
from tmas.prompts import BUILT_IN, PromptError, Prompts
from tmas.prompts.variables import VARIABLES
from tmas.report.about import about_section
from tmas.report.items import Table
from tmas.report.problems import TextBudget
from tmas.report.runs import read_runs
from tmas.report.training_runs import read_training
from tmas.rewards import verl_entry
from tmas.run.directory import RunRefused
from tmas.run.replay import RecordedRun
from tmas.settings import RunSettings
from tmas.testing import team
from tmas.testing.chat_server import Body, ScriptedServer, run_in_thread
from tmas.training.rl import train as training
from tmas.training.rl.plan import Plan
from tmas.training.rows import read_rows

MARK = "Mind the small things."
REWARD = "reward.custom_reward_function.reward_kwargs.settings"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every prompt as it is built in, but for one more line in ``problem``, which most of them include."""
    return changed(tmp_path / "mine", "problem")


def changed(folder: Path, *names: str, mark: str = MARK) -> Path:
    BUILT_IN.write_all(folder)
    for name in names:
        (folder / f"{name}.jinja").write_text(f"{BUILT_IN.texts[name]}\n{mark}\n", encoding="utf-8")
    return folder


def asked(server: ScriptedServer) -> list[str]:
    return [team.prompt(body) for body in server.requests]


# --- solve


@pytest.mark.usefixtures("answers_as_text")
@pytest.mark.parametrize("name", METHODS)
async def test_every_prompt_is_given_the_variables_that_the_check_knows(name: str, monkeypatch: pytest.MonkeyPatch):
    given: dict[str, set[str]] = {}
    render = Prompts.render

    def noted(self: Prompts, prompt: str, **values: object) -> str:
        given.setdefault(prompt, set()).update(values)
        return render(self, prompt, **values)

    monkeypatch.setattr(Prompts, "render", noted)
    async with ScriptedServer(team.reply) as server:
        await asolve_all(team.problems(1), team.model(server.base_url), team.small(name))
    assert given == {prompt: set(VARIABLES[prompt]) for prompt in given}


@pytest.mark.usefixtures("answers_as_text")
async def test_a_replaced_prompt_arrives_at_the_model_and_the_run_resumes_with_it_alone(folder: Path, tmp_path: Path):
    async def solve(server: ScriptedServer, prompts: Path | None) -> None:
        model = team.model(server.base_url)
        await asolve_all(team.problems(1), model, team.method(), output_dir=tmp_path / "run", prompts=prompts)

    async with ScriptedServer(team.reply) as server:
        await solve(server, folder)
        assert all(MARK in prompt for prompt in asked(server))
        calls = len(server.requests)
        kept = tmp_path / "run" / "prompts"
        assert [file.name for file in kept.iterdir()] == ["problem.jinja"]
        await solve(server, kept)
        for other in (None, changed(tmp_path / "other", "problem", mark="Otherwise.")):
            with pytest.raises(RunRefused, match=rf"prompt problem\.jinja: '.*\n.*prompts={kept}"):
                await solve(server, other)
        assert len(server.requests) == calls
    replayed = RecordedRun(tmp_path / "run")
    assert replayed.prompts == Prompts.load(folder)
    trajectory = await asyncio.to_thread(replayed.trajectory, team.problems(1)[0])
    assert len(trajectory.iterations) == 3


def test_the_command_refuses_a_wrong_folder_before_any_call(tmp_path: Path):
    mine = changed(tmp_path / "mine")
    (mine / "summary.jinja").write_text("{{ candidate }}\n")
    given = ["problems=sample", f"output_dir={tmp_path / 'run'}", "model.name=m", f"prompts={mine}"]
    with run_in_thread(ScriptedServer(team.reply)) as server:
        done = tmas("solve", *given, f"model.base_url={server.base_url}")
    assert (done.returncode, server.requests) == (2, [])
    assert done.stderr.startswith(
        f"tmas: wrong settings:\n  prompts: {mine}/summary.jinja:1: unknown variable 'candidate'."
        " The variables of summary.jinja are: "
    )
    assert not (tmp_path / "run").exists()


def test_the_command_writes_the_built_in_prompts_and_overwrites_nothing(tmp_path: Path):
    first = tmas_process("prompts", tmp_path / "a folder")
    assert (first.returncode, first.stderr) == (0, "")
    assert f"prompts={tmp_path / 'a folder'}" in first.stdout
    assert {f.stem: f.read_text("utf-8") for f in (tmp_path / "a folder").iterdir()} == BUILT_IN.texts
    assert tmas("prompts", tmp_path / "a folder").returncode == 0
    (tmp_path / "a folder" / "form.jinja").write_text("Mine.")
    again = tmas("prompts", tmp_path / "a folder")
    assert (again.returncode, "other texts in form.jinja" in again.stderr) == (2, True)
    assert "usage: tmas prompts" in tmas("prompts").stderr


# --- serve, Ray's workers


@pytest.mark.usefixtures("answers_as_text")
async def test_a_server_renders_its_own_prompts_for_each_request(folder: Path, tmp_path: Path):
    out = tmp_path / "served"
    async with (
        ScriptedServer(team.reply) as engine,
        ScriptedServer(team.reply) as other,
        served(out, engine.base_url, prompts=folder) as server,
        served(tmp_path / "plain", other.base_url) as plain,
    ):
        assert (await server.ask()).status == (await plain.ask()).status == 200
    assert all(MARK in prompt for prompt in asked(engine))
    assert not any(MARK in prompt for prompt in asked(other))
    [run] = runs_in(out)
    assert MARK in (run / "prompts" / "problem.jinja").read_text()


@pytest.mark.usefixtures("answers_as_text")
async def test_a_worker_on_ray_gets_the_texts_and_needs_no_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray", reason="needs the cpu or gpu extra")
    from tmas.run import ray_workers as workers
    from tmas.run.runtime import Runtime

    sent: list[bytes] = []
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: sent.append(pickle.dumps(given))))
    monkeypatch.setattr(workers.ray, "remote", lambda _: actor)
    monkeypatch.setattr(workers.ray, "nodes", lambda: [{"NodeID": "a" * 56, "Alive": True}])
    monkeypatch.setattr(workers.ray.util, "get_node_ip_address", lambda: "here")
    run = tmp_path / "run"
    (run / "trace").mkdir(parents=True)
    (run / "manifest.json").write_text('{"schema_version": 1, "chat_template": "counted"}')
    async with ScriptedServer(team.reply) as server:
        given = {"model": team.model(server.base_url), "method": team.method(), "prompts": folder}
        workers._start_actors(Runtime(RunSettings.model_validate(given), "key", files=1), run)
        (folder / "problem.jinja").unlink()
        settings, directory, prompts = pickle.loads(sent[0])
        worker = workers.RayWorker(settings, directory, prompts)
        await worker.heartbeat(workers.HeartbeatRequest(8, ()))
        assert worker._startup
        runtime, solver = await worker._startup
        async with contextlib.aclosing(runtime):
            await solver.solve(0, team.problems(1)[0])
        assert asked(server)
        assert all(MARK in prompt for prompt in asked(server))
        with pytest.raises(UserError, match="a version of tmas with other prompts"):
            await workers.RayWorker(settings, directory, "of another version")._start()


# --- build


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems, and a teacher's run on them with replaced prompts."""
    folder = tmp_path_factory.mktemp("build")
    with run_in_thread(ScriptedServer(team.reply)) as server:
        mine = changed(folder / "mine", "form", "attempt", "summary")
        settings = distill_settings(server, folder / "teacher", problem_file(folder, 6), prompts=mine)
        distill(settings, runner, silent)
    return folder


def built(teacher: Path, output: Path, prompts: Path | None, **changes: Any) -> list[str]:
    """The prompts of all rows."""
    given = {"problems": teacher / "asked.jsonl", "run": teacher / "teacher", "output_dir": output, "prompts": prompts}
    size = {"tokenizer": "estimate", "max_prompt_tokens": 9000, "validation_share": 0}
    rows = {"normal": 3, "experience": 4, "guideline": 2}
    build(BuildSettings.model_validate({**given, **size, "rows": rows, **changes}), silent)
    return [row.prompt[0].content for row in read_rows(output / "train.parquet")]


@pytest.mark.parametrize("given", [None, "mine"])
def test_rows_are_rendered_with_the_prompts_of_the_run(teacher: Path, tmp_path: Path, given: str | None):
    prompts = built(teacher, tmp_path, teacher / given if given else None)
    assert len(prompts) == 9
    assert all(prompt.endswith(MARK) for prompt in prompts)  # form
    assert {prompt.count(MARK) for prompt in prompts} == {1, 4}  # and three attempts


def test_build_refuses_other_prompts_than_those_of_the_run_by_name(teacher: Path, tmp_path: Path):
    other = changed(tmp_path / "other", "form", mark="Otherwise.")
    with pytest.raises(UserError, match="with the run's own prompts, and these prompts differ:") as refused:
        built(teacher, tmp_path / "rows", other)
    lines = str(refused.value).splitlines()[1:]
    assert [line.partition(".jinja")[0].strip() for line in lines[:-1]] == ["built-in attempt", str(other / "form")]
    assert lines[-1] == "Leave out prompts=FOLDER to use the run's own prompts."
    assert not (tmp_path / "rows").exists()


def test_build_takes_other_prompts_where_no_row_is_rendered_with_them(teacher: Path, tmp_path: Path):
    other = changed(tmp_path / "other", "form", "attempt", "pacore", "verification")
    assert built(teacher, tmp_path / "rows", other) == built(teacher, tmp_path / "again", None)


def test_build_refuses_another_verification_prompt_for_verification_rows(teacher: Path, tmp_path: Path):
    """A run without a verifier is not compared."""
    mine, other = (changed(tmp_path / name, "form", "attempt", *more) for name, more in (("a", ()), ("b", ("rubric",))))
    with run_in_thread(ScriptedServer(team.reply)) as server:
        for name, prompts, method in (
            ("votes", mine, team.small("majority_vote")),
            ("verified", other, team.small("best_of_n")),
        ):
            given = {"model": team.model(server.base_url), "method": method, "prompts": prompts}
            problems = list(read_problems(teacher / "asked.jsonl"))
            runner(problems, RunSettings.model_validate(given), tmp_path / name)
    rows = {"normal": 0, "experience": 0, "guideline": 0, "verification": 2}

    def with_runs(prompts: Path | None, *names: str) -> list[str]:
        runs = [tmp_path / name for name in names] or None
        return built(teacher, tmp_path / "rows", prompts, rows=rows, verification={"runs": runs}, sft={"per_role": 0})

    differ = "with the run's own prompts, and these prompts differ:\n  .*rubric.jinja"
    for names in ((), ("votes",)):
        assert with_runs(mine, *names)
        with pytest.raises(UserError, match=f"{differ}.*\nLeave out prompts=FOLDER"):
            with_runs(other, *names)
    with pytest.raises(UserError, match=f"verified: .*{differ}.*\nSet prompts to a folder"):
        with_runs(None, "votes", "verified")
    assert with_runs(other, "votes", "verified")


# --- judges


def judged(body: Body) -> list[str]:
    return [json.dumps({"reasoning": "", "verdict": "different"})] * body.get("n", 1)


async def test_a_changed_prompt_of_the_judge_is_another_verdict(tmp_path: Path):
    """Nothing is asked again with the same prompt; with another one everything is."""
    answers = iteration([candidate("6", [1.0])], "6")
    run = write_run(tmp_path / "run", [prediction("p", "7", [answers], [(10, 10)])])
    mine = changed(tmp_path / "mine", "judge_equivalence", "summary")

    async def evaluated(server: ScriptedServer, prompts: Path | None) -> dict[str, Any]:
        judge = {"name": "judge", "base_url": server.base_url, "passes": 1}
        settings = {"runs": [run], "judge": judge, "prompts": prompts, "bootstrap": {"resamples": 100}}
        [found] = await evaluate(EvaluateSettings.model_validate(settings))
        judge_used = found.settings.judge
        assert judge_used is not None
        return judge_used.model_dump()

    async with ScriptedServer(judged) as server:
        plain = await evaluated(server, None)
        own = await evaluated(server, mine)
        assert [MARK in prompt for prompt in asked(server)] == [False, True]
        assert (await evaluated(server, mine), await evaluated(server, None)) == (own, plain)
        assert len(server.requests) == 2
    assert plain["prompts"] == {"judge_equivalence": BUILT_IN.hash("judge_equivalence")}
    assert plain["replaced"] == {}
    assert own["prompts"] != plain["prompts"]
    assert own["replaced"] == {"judge_equivalence": Prompts.load(mine).texts["judge_equivalence"]}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``tmas train`` with a stand-in for verl's trainer; returns the configuration that verl gets."""
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a start sets variables for its processes
    monkeypatch.setattr(training, "make_plan", lambda config: Plan(()))
    monkeypatch.setitem(sys.modules, "tmas.training.rl.task_runner", SimpleNamespace(TaskRunner=None))

    def start(prompts: Path | None, settings: dict[str, Any]) -> Any:
        seen: list[Any] = []
        stand_in = SimpleNamespace(run_ppo=lambda config, task_runner_class: seen.append(config))
        monkeypatch.setitem(sys.modules, "verl.trainer.main_ppo", stand_in)
        own = {"env": {}, "dry_run": False, "output_dir": str(tmp_path / "run"), "prompts": prompts and str(prompts)}
        trainer = {"trainer": {"default_local_dir": str(tmp_path / "run" / "checkpoints")}}
        ray = {"ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": {}}}}}
        config = OmegaConf.create({**own, **trainer, **ray, "data": {"seed": 1}})
        OmegaConf.update(config, REWARD, settings, force_add=True)
        training.train(config, Console(quiet=True))
        return seen[0]

    return start


async def test_reward_workers_ask_the_judge_by_the_prompts_of_the_run(start: Any, tmp_path: Path):
    mine = changed(tmp_path / "mine", "judge_equivalence", mark="Costs ${x} and {{ '$' }}{y}.")
    async with ScriptedServer(judged) as server:
        sent = OmegaConf.to_yaml(start(mine, reward_settings(server.base_url)))
        (mine / "judge_equivalence.jinja").unlink()
        settings = OmegaConf.select(OmegaConf.create(sent), REWARD)
        words = r"Hence \boxed{\text{half of a square}}."  # only a judge can compare them
        await verl_entry.compute_score("math_grm", words, "a right triangle", extra_info(), settings=settings)
        await verl_entry.close()
    assert {"Costs ${x} and ${y}." in prompt for prompt in asked(server)} == {True}


def test_a_checkpoint_is_resumed_with_the_judge_s_prompts_alone(start: Any, tmp_path: Path):
    settings = reward_settings("http://h/v1", experience={"form": "judge"}, novelty={"form": "none"})
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    start(None, settings)
    identity = tmp_path / "run" / "starts" / "0001" / "identity.json"
    recorded = orjson.loads(identity.read_bytes())
    older = {key: value for key, value in recorded.items() if not key.startswith("prompts.")}
    judges = {f"prompts.judge_{name}" for name in ("code", "equivalence", "experience")}
    assert set(recorded) - set(older) == judges
    identity.write_bytes(orjson.dumps(older))  # as runs before prompts could be replaced have it
    start(None, settings)
    start(changed(tmp_path / "no_matter", "judge_novelty", "solution"), settings)
    with pytest.raises(RunRefused, match=r"or restore:\n  prompts\.judge_experience: '\w+' in the run, '\w+' now$"):
        start(changed(tmp_path / "mine", "judge_experience"), settings)


def test_the_prompt_about_critiques_is_part_of_the_identity_if_critiques_are_judged(start: Any, tmp_path: Path):
    off = {name: {"form": "none"} for name in ("experience", "novelty")}
    start(None, reward_settings("http://h/v1", verification={"form": "judge"}, **off))
    recorded = orjson.loads((tmp_path / "run" / "starts" / "0001" / "identity.json").read_bytes())
    used = {"prompts.judge_code", "prompts.judge_equivalence", "prompts.judge_critique"}
    assert used == {name for name in recorded if name.startswith("prompts.")}


def test_training_with_a_wrong_folder_is_refused_before_anything_is_begun(start: Any, tmp_path: Path):
    mine = changed(tmp_path / "mine")
    (mine / "judge_novelty.jinja").write_text("{{ gold }}")
    with pytest.raises(PromptError, match=r"judge_novelty\.jinja:1: unknown variable 'gold'"):
        start(mine, reward_settings("http://h/v1"))
    assert not (tmp_path / "run").exists()


# --- the report


async def test_the_report_shows_what_was_replaced(folder: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", [prediction("p", "7", [iteration([candidate("7", [1.0])], "7")], [(10, 10)])])
    plain = write_run(tmp_path / "plain", [prediction("p", "7", [iteration([candidate("7", [1.0])], "7")], [(10, 10)])])
    Prompts.load(folder).write(run / "prompts")
    mine = changed(tmp_path / "judges", "judge_equivalence")
    await evaluate(EvaluateSettings(runs=(plain,), timeout=60.0))
    async with ScriptedServer(judged) as server:
        settings = {"runs": [run], "judge": {"name": "judge", "base_url": server.base_url}, "prompts": mine}
        await evaluate(EvaluateSettings.model_validate(settings))
    trained = make_training(tmp_path / "trained", [range(1, 4)])
    Prompts.load(mine).write(trained / "starts" / "0001" / "prompts")
    runs = read_runs([run], lambda _: None)
    tables = [
        item
        for item in about_section(runs, read_training([trained]), TextBudget(0, 0)).items
        if isinstance(item, Table)
    ]
    rows = [table.rows for table in tables if table.title == "Replaced prompts"]
    judge = ["judge_equivalence.jinja", Prompts.load(mine).hash("judge_equivalence")]
    name = runs.runs[0].name
    assert rows == [
        [[name, "problem.jinja", Prompts.load(folder).hash("problem")], [name, *judge]],
        [["trained", *judge]],
    ]
    shown = about_section(read_runs([plain], lambda _: None), [], TextBudget(0, 0)).items
    assert "Replaced prompts" not in [item.title for item in shown if isinstance(item, Table)]
