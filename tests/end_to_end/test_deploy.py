"""The manifests under ``deploy/``: what their linters say, and whether the command line takes what they call it with.

The scripts are really run, with a program in place of vsc-engine that notes its arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from engine.cli import app
from engine.store.input_shard import InputShard, missing_shards
from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
SLURM = sorted((DEPLOY / "slurm").glob("*.sbatch"))
JOBS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
BASH, SHELLCHECK = "/bin/bash", str(Path(sys.executable).with_name("shellcheck"))
RAY_JOB = DEPLOY / "kuberay" / "rayjob.yaml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options(arguments: list[str]) -> dict[str, Any]:
    """What the command line reads of the arguments. Raises ``click.UsageError``, for what it does not take."""
    command: Any = typer.main.get_command(app)
    name, *rest = arguments
    with command.make_context("vsc-engine", [name]) as above:
        verb = command.get_command(above, name)
        assert verb is not None, f"no verb {name}"
        with verb.make_context(name, rest, parent=above) as context:
            return dict(context.params)


def run(command: list[str], folder: Path, *, status: int = 0, **environment: str) -> tuple[int, list[list[str]]]:
    """The exit status of a script in which vsc-engine ends with ``status``, and the arguments of each call of that."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "vsc-engine"
    program.write_text(f'#!/bin/sh\n{{ printf "%s\\0" "$@"; printf "\\n"; }} >> "{folder}/calls"\nexit {status}\n')
    program.chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    found = {**os.environ, **environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    result = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
    calls = (folder / "calls").read_text(encoding="utf-8").splitlines() if (folder / "calls").exists() else []
    return result.returncode, [line.split("\0")[:-1] for line in calls]


def check_shards(calls: list[list[str]], *, count: int) -> None:
    """Each job has another shard and another output, and none is missing."""
    read = [options(arguments) for arguments in calls]
    shards = [InputShard.parse(values["shard"]) for values in read]
    assert len(shards) == len(set(shards)) == count
    assert {shard.count for shard in shards} == {count}
    assert missing_shards(shards) == []
    assert len({values["output"] for values in read}) == count


class TestSlurm:
    @pytest.mark.parametrize("path", SLURM, ids=lambda path: path.name)
    def test_linters_have_nothing_to_say(self, path: Path) -> None:
        subprocess.run([BASH, "-n", path], check=True)
        result = subprocess.run([SHELLCHECK, "--shell=bash", path], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, "")

    def settings(self, folder: Path) -> dict[str, str]:
        return {"VIDEOS": "/v i d", "ENGINES": "/engines", "OUTPUT": str(folder / "out"), "SHARDS": "4"}

    def test_each_job_of_the_array_has_its_shard(self, tmp_path: Path) -> None:
        calls = []
        for number in range(1, 5):
            settings = {**self.settings(tmp_path), "SLURM_ARRAY_TASK_ID": str(number)}
            status, found = run([BASH, str(DEPLOY / "slurm" / "extract.sbatch")], tmp_path, **settings)
            assert status == 0
            calls += found
        check_shards(calls, count=4)
        assert options(calls[0])["paths"] == ["/v i d"]
        text = (DEPLOY / "slurm" / "extract.sbatch").read_text()
        assert "--array=1-64" in text
        assert "SHARDS:-64" in text

    @pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 0), (1, 1), (137, 137)])
    def test_videos_that_failed_are_no_failed_job(self, tmp_path: Path, status: int, expected: int) -> None:
        settings = {**self.settings(tmp_path), "SLURM_ARRAY_TASK_ID": "1"}
        assert run([BASH, str(DEPLOY / "slurm" / "extract.sbatch")], tmp_path, status=status, **settings)[0] == expected

    def test_all_shards_are_merged(self, tmp_path: Path) -> None:
        for number in range(1, 5):
            (tmp_path / "out" / "shards" / str(number)).mkdir(parents=True)
        status, (arguments,) = run([BASH, str(DEPLOY / "slurm" / "merge.sbatch")], tmp_path, OUTPUT=f"{tmp_path}/out")
        assert (status, len(options(arguments)["stores"])) == (0, 4)

    def test_a_setting_that_is_missing_is_named(self, tmp_path: Path) -> None:
        script = str(DEPLOY / "slurm" / "extract.sbatch")
        assert run([BASH, script], tmp_path, SLURM_ARRAY_TASK_ID="1")[1] == []


class TestKubernetes:
    @pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
    def test_linters_have_nothing_to_say(self, path: Path) -> None:
        kubernetes_validate.validate(load(path), "1.33", strict=True)
        (container,) = load(path)["spec"]["template"]["spec"]["containers"]
        command = [SHELLCHECK, "--shell=sh", "-"]
        result = subprocess.run(command, input=container["args"][0], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, "")

    def test_the_linter_can_fail(self) -> None:
        job = load(DEPLOY / "kubernetes" / "extract.yaml")
        job["spec"]["completionsMode"] = job["spec"].pop("completionMode")
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(job, "1.33", strict=True)

    def test_each_index_has_its_shard(self, tmp_path: Path) -> None:
        spec = load(DEPLOY / "kubernetes" / "extract.yaml")["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        calls = []
        for index in range(spec["completions"]):
            status, found = run([*container["command"], *container["args"]], tmp_path, JOB_COMPLETION_INDEX=str(index))
            assert status == 0
            calls += found
        check_shards(calls, count=spec["completions"])

    @pytest.mark.parametrize(("status", "is_failure"), [(0, False), (3, False), (1, True), (137, True)])
    def test_videos_that_failed_are_no_failed_pod(self, tmp_path: Path, status: int, is_failure: bool) -> None:
        (container,) = load(DEPLOY / "kubernetes" / "extract.yaml")["spec"]["template"]["spec"]["containers"]
        command = [*container["command"], *container["args"]]
        assert bool(run(command, tmp_path, status=status, JOB_COMPLETION_INDEX="0")[0]) == is_failure

    def test_the_merge_is_taken(self, tmp_path: Path) -> None:
        (container,) = load(DEPLOY / "kubernetes" / "merge.yaml")["spec"]["template"]["spec"]["containers"]
        status, (arguments,) = run([*container["command"], *container["args"]], tmp_path)
        assert (status, options(arguments)["output"]) == (0, "/data/all")


class TestKubeRay:
    def test_pods_are_valid(self) -> None:
        """Of the operator's own kinds no linter is at hand; what they are made of is Kubernetes'."""
        cluster = load(RAY_JOB)["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
            kubernetes_validate.validate({**template, "template": group["template"]}, "1.33", strict=True)

    def test_the_ray_version_is_the_one_that_is_tested(self) -> None:
        constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
        assert f"ray=={load(RAY_JOB)['spec']['rayClusterSpec']['rayVersion']}" in constraints

    @pytest.mark.parametrize(("status", "is_failure"), [(0, False), (3, False), (1, True)])
    def test_the_command_is_taken(self, tmp_path: Path, status: int, is_failure: bool) -> None:
        code, (arguments,) = run(["/bin/sh", "-c", load(RAY_JOB)["spec"]["entrypoint"]], tmp_path, status=status)
        assert bool(code) == is_failure
        assert options(arguments)["cluster"] == "auto"
