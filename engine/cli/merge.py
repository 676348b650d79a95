"""``vsc-engine merge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from engine.console import say


def merge(
    stores: Annotated[
        list[Path], typer.Argument(help="Store folders, as `extract --shard` writes them.", metavar="STORE...")
    ],
    output: Annotated[Path, typer.Option(help="Store folder to write; what it holds already is kept.")],
    partial: Annotated[bool, typer.Option("--partial", help="Go on where shards of the inputs are missing.")] = False,
) -> None:
    """Make one store of several that were made with the same engines and settings; they stay as they are.

    Example: vsc-engine merge shards/* --output all
    """
    from engine.store.merge import FAILURES, merge_stores
    from engine.store.tables import write_failures

    summary = merge_stores(stores, output, allow_missing=partial)
    write_failures(output / FAILURES, summary.failures)
    if summary.missing:
        say(f"left out, because they were not named: shards {', '.join(summary.missing)}")
    say(
        f"{summary.num_videos} videos of {len(stores)} stores, {summary.num_repeated} of them in more than one; "
        f"{len(summary.failures)} failed when they were extracted"
    )
    figures = {
        "output": str(output),
        "num_videos": summary.num_videos,
        "num_repeated": summary.num_repeated,
        "num_failures": len(summary.failures),
        "missing_shards": summary.missing,
    }
    print(json.dumps(figures))
