"""``python -m training.store.build PATH... --output STORE``: videos, picture folders and zip files to a frame store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.options import EXIT_SOME_FAILED
from engine.console import progress, say
from engine.errors import EngineError
from training.store.frame_store import FrameStore, build_store, find_sources, num_shards

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    paths: Annotated[list[Path], typer.Argument(help="Videos, pictures, folders of them, zip files of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder of the store.")],
    fps: Annotated[float, typer.Option(min=1e-3, help="Pictures per second of video.")] = 1.0,
    short_side_px: Annotated[int, typer.Option(min=16, help="Larger pictures are shrunk to this.")] = 400,
    distinct_bits: Annotated[
        int, typer.Option(min=0, help="Pictures of one video must differ in so many of the 128 bits of their hash.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Build a frame store, or go on with one that was cut short.

    Example: python -m training.store.build photos/ catalogue/ --output store/
    """
    try:
        sources = find_sources(paths)
        with progress("shards", num_shards(sources)) as advance:
            failures = build_store(
                sources,
                output,
                fps=fps,
                short_side_px=short_side_px,
                distinct_bits=distinct_bits,
                num_workers=workers,
                advance=advance,
            )
        say(f"{output}: {len(FrameStore.open(output))} pictures of {len(sources)} sources, {len(failures)} failed")
    except EngineError as error:
        say(f"build_store: {error}")
        raise typer.Exit(1) from error
    for failure in failures:
        say(f"failed: {failure.name}: {failure.reason}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


if __name__ == "__main__":
    app()
