"""What every benchmark shares: the facts of the machine, and a report as a table for people and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("av", "faiss-cpu", "numpy", "opencv-python-headless", "openvino", "pillow")


def machine_facts() -> dict[str, Any]:
    """Processor, cores, operating system and the versions of the libraries that do the work."""
    return {
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def report(name: str, *, lines: list[str], figures: dict[str, Any], output: Path | None) -> None:
    """Print the lines and, last, one JSON object; with ``output``, write both to ``<output>/<name>.md`` too."""
    document = json.dumps({"benchmark": name, "machine": machine_facts(), **figures})
    print("\n".join(lines))
    print(document)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = "\n".join([f"# {name}", "", "```", *lines, "```", "", "```json", document, "```", ""])
        (output / f"{name}.md").write_text(text, encoding="utf-8")
