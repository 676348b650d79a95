"""``vsc-engine merge``."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import not_of_the_web, print_json
from engine.console import say


def merge(
    stores: Annotated[
        list[str], typer.Argument(help="Store folders or URLs, as `extract --shard` writes them.", metavar="STORE...")
    ],
    output: Annotated[
        str, typer.Option(help="Store folder or URL to write; what it holds already is kept.", callback=not_of_the_web)
    ],
    partial: Annotated[bool, typer.Option("--partial", help="Go on where shards of the inputs are missing.")] = False,
) -> None:
    """Make one store of several that were made with the same engines and settings; they stay as they are.

    Example: vsc-engine merge shards/* --output all
    """
    from engine.build.cache import cache_folder
    from engine.storage.location import location
    from engine.store.merge import FAILURES, merge_stores
    from engine.store.staging import staged
    from engine.store.tables import write_failures

    with staged(location(output), cache=cache_folder) as folder:
        summary = merge_stores([location(store) for store in stores], folder, allow_missing=partial)
    write_failures(location(output) / FAILURES, summary.failures)
    if summary.missing:
        say(f"left out, because they were not named: shards {', '.join(summary.missing)}")
    say(
        f"{summary.num_videos} videos of {len(stores)} stores, {summary.num_repeated} of them in more than one; "
        f"{len(summary.failures)} failed when they were extracted"
    )
    figures = {
        "output": output,
        "num_videos": summary.num_videos,
        "num_repeated": summary.num_repeated,
        "num_failures": len(summary.failures),
        "missing_shards": summary.missing,
    }
    print_json(figures)
