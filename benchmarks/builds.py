"""Builds of the program side by side: each is run as `vsc-engine run`, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import ConfigError
from engine.files import written_aside

REPOSITORY = Path(__file__).resolve().parent.parent
STORES = ("references", "queries")

BuildsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--build",
        metavar="NAME=PATH",
        help="An engines directory, or a checkout of the project, which runs its own lite; may be repeated; "
        "default: now=this checkout.",
    ),
]


@dataclass(frozen=True)
class Build:
    """A checkout of the project, and the engines directory that it runs; None: those of its own preset `lite`."""

    name: str
    checkout: Path
    engines: Path | None = None


def parse_builds(texts: Sequence[str] | None) -> list[Build]:
    """``NAME=PATH``, PATH an engines directory or a checkout. Raises ``ConfigError`` for anything else."""
    if not texts:
        return [Build("now", REPOSITORY)]
    builds = []
    for text in texts:
        name, found, path = text.partition("=")
        folder = Path(path).resolve()
        if not (name and found):
            raise ConfigError(f"expected --build NAME=PATH, got {text!r}")
        if (folder / "manifest.json").is_file():
            builds.append(Build(name, REPOSITORY, folder))
        elif (folder / "engine" / "__main__.py").is_file():
            builds.append(Build(name, folder))
        else:
            raise ConfigError(
                f"{folder} is no engines directory (no manifest.json) and no checkout (no engine/__main__.py)"
            )
    names = [build.name for build in builds]
    if len(set(names)) != len(names):
        raise ConfigError(f"every --build needs a name of its own, got {', '.join(names)}")
    return builds


def origins(builds: Sequence[Build]) -> list[str]:
    """A line for each build: its engines directory, or the commit that changed ``engine/`` of its checkout last."""
    return [f"{build.name}: {_origin(build)}" for build in builds]


def _origin(build: Build) -> str:
    if build.engines is not None:
        return f"engines directory {build.engines.name}"
    command = ["git", "-C", str(build.checkout), "log", "-1", "--format=%h", "--", "engine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"lite of commit {done.stdout.strip() or 'unknown'}"


def run_build(
    build: Build,
    *,
    queries: Path,
    references: Path,
    output: Path,
    cache: Path,
    ground_truth: Path | None = None,
    score_norm: bool = True,
    described: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Run the whole protocol into ``output`` and return the figures that the program prints.

    ``cache``: a folder for the engines that each checkout makes of its weights, which would replace one another in the
    user's own cache.
    ``described``: stores (``references``, ``queries``) of an earlier run of the same build, so that they are not
    computed again. A run that was cut short goes on, and a finished one is not repeated: a build that was changed needs
    another ``output``.

    Raises ``ConfigError``, with the last line of the program, where it does not end well or a video fails.
    """
    finished = output / "figures.json"
    if finished.is_file():
        return dict(json.loads(finished.read_text(encoding="utf-8")))
    for name, store in (described or {}).items():
        if not (output / name).exists():
            aside = output / f".{name}.aside"
            shutil.copytree(store, aside, dirs_exist_ok=True)
            aside.rename(output / name)
    options = {"queries": queries, "references": references, "output": output}
    options |= {"ground-truth": ground_truth} if ground_truth is not None else {}
    options |= {"engines": build.engines} if build.engines is not None else {}
    command = [sys.executable, "-m", "engine", "run", "--score-norm" if score_norm else "--no-score-norm"]
    command += [word for name, path in options.items() for word in (f"--{name}", str(path.absolute()))]
    environment = {**os.environ, "PYTHONPATH": str(build.checkout)}
    environment["XDG_CACHE_HOME"] = str((cache / build.name).absolute())
    # `python -m` looks for modules in the working folder first.
    done = subprocess.run(command, cwd=build.checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ConfigError(f"build {build.name}: `vsc-engine run` on {queries} ended with {done.returncode}: {last}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    with written_aside(finished) as aside:
        aside.write_text(json.dumps(figures), encoding="utf-8")
    return figures
