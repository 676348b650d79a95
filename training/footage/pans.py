"""``python -m training.footage.pans PICTURES --output DIR``: slow pans over pictures, for more content than
videos give.

An edit-score model sees edits only against content. A few dozen videos hold too little of it: their pictures are
learned by heart. Each picture becomes a short video with few frames, which is quick to edit and to encode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from engine.console import progress, say
from engine.errors import ConfigError, EngineError
from training.footage.clips import write_clip
from training.footage.resizing import Frame, even, resize, scaled, size_of
from training.processes import in_processes
from training.store.frame_store import PICTURE_SUFFIXES, decode_picture

FPS = Fraction(2)
NUM_FRAMES = 14
SHORT_SIDE_PX = 288
_WINDOW = (0.7, 0.95)
_MAX_ASPECT = 2.5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    pictures: Annotated[list[Path], typer.Argument(help="Folders of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder for the videos.")],
    num_videos: Annotated[int, typer.Option(min=1, help="How many pictures to draw.")] = 1500,
    seed: Annotated[int, typer.Option(help="Another one draws other pictures and pans.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Make videos of slow pans over pictures."""
    try:
        with progress("pans", num_videos) as advance:
            num_written = make_pans(
                pictures, output, num_videos=num_videos, seed=seed, num_workers=workers, advance=advance
            )
    except EngineError as error:
        say(f"pans: {error}")
        raise typer.Exit(1) from error
    say(f"{num_written} videos are in {output}")


def make_pans(
    folders: Sequence[Path],
    output: Path,
    *,
    num_videos: int,
    seed: int,
    num_workers: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Write a pan over each of ``num_videos`` pictures drawn from ``folders``: ``P######.mp4``; returns their number.

    The same pictures and seed give the same files. Pictures that cannot be read, or are longer than 2.5 times their
    width, are passed over. Raises ``ConfigError`` where there is no picture.
    """
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise ConfigError(f"there is no picture in {', '.join(map(str, folders))}")
    order = np.random.default_rng(seed).permutation(len(found))[:num_videos]
    output.mkdir(parents=True, exist_ok=True)
    num_written = 0
    for is_written in in_processes(
        partial(_write_pan, output=output, seed=seed),
        [(number, found[index]) for number, index in enumerate(order)],
        num_workers=num_workers,
    ):
        num_written += is_written
        advance()
    return num_written


def _write_pan(item: tuple[int, Path], *, output: Path, seed: int) -> bool:
    number, path = item
    try:
        pixels = decode_picture(path.read_bytes())
    except OSError:
        return False
    if max(size_of(pixels)) > _MAX_ASPECT * min(size_of(pixels)):
        return False
    write_clip(output / f"P{number:06d}.mp4", pan(pixels, rng=np.random.default_rng([seed, number])), fps=FPS)
    return True


def pan(picture: Frame, *, rng: np.random.Generator) -> Iterator[Frame]:
    """Yield 14 frames: a window of 70 to 95% of the sides that moves on a straight line, enlarged to 288 px."""
    factor = SHORT_SIDE_PX / min(size_of(picture))
    picture = resize(picture, scaled(size_of(picture), factor, factor))
    share = rng.uniform(*_WINDOW)
    width, height = even(scaled(size_of(picture), share, share))
    room = np.array(size_of(picture)) - (width, height)
    start, end = rng.uniform(0, 1, (2, 2)) * room
    for progress_share in np.linspace(0, 1, NUM_FRAMES):
        left, top = np.round(start + (end - start) * progress_share).astype(int)
        yield np.ascontiguousarray(picture[top : top + height, left : left + width])


if __name__ == "__main__":
    app()
