"""What every benchmark shares: its command line, the facts of the machine, and a report for people and programs."""

from __future__ import annotations

import inspect
import json
import os
import platform
import re
import resource
import time
from collections.abc import Callable
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.console import say
from engine.errors import EngineError

PACKAGES = (
    "av",
    "faiss-cpu",
    "faiss-gpu",
    "lancedb",
    "numpy",
    "nvidia-dali-cuda130",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "ray",
    "tensorrt",
    "tensorrt-rtx",
)
"""What does the work. Not all of it is installed anywhere: of FAISS one, and TensorRT and DALI where GPUs are."""

EnginesOption = Annotated[Path, typer.Option(help="Engines directory.")]
OutputOption = Annotated[Path | None, typer.Option(help="Folder for the report, e.g. benchmarks/results.")]
VideosArgument = Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Videos, and folders of videos.")]


def command_line(main: Callable[..., None]) -> typer.Typer:
    """The command line of a benchmark: the parameters of ``main`` are its options, the docstring is its help.

    An ``EngineError`` is said in one line on stderr, with exit status 1.
    """

    @wraps(main)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            main(*arguments, **options)
        except EngineError as error:
            say(f"{Path(inspect.getfile(main)).stem}: {error}")
            raise typer.Exit(1) from error

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command()(run)
    return app


def machine_facts() -> dict[str, Any]:
    """Processor, cores, operating system and the versions of those `PACKAGES` that are installed."""
    return {
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _installed_version(name)) is not None},
    }


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def report(name: str, *, lines: list[str], figures: dict[str, Any], output: Path | None) -> None:
    """Print the lines and, last, one JSON object; with ``output``, write both to ``<output>/<name>.md`` too.

    What a file should not be called after, such as a slash in the name of a preset, becomes an underscore.
    """
    document = json.dumps({"benchmark": name, "machine": machine_facts(), **figures})
    print("\n".join(lines))
    print(document)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = "\n".join([f"# {name}", "", "```", *lines, "```", "", "```json", document, "```", ""])
        file = re.sub(r"[^\w.-]+", "_", name)
        (output / f"{file}.md").write_text(text, encoding="utf-8")
