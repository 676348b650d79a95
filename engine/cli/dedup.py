"""``vsc-engine dedup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import (
    VIDEO_TIMEOUT_S,
    DecoderOption,
    EnginesOption,
    EnginesPresetOption,
    GpusOption,
    RecursiveOption,
    RetryFailedOption,
    VideoTimeoutOption,
    WorkersOption,
    finish,
    folder_to_write,
    goes_on,
    open_engines,
)
from engine.console import progress, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.run.duplicates import DuplicatePair, Member
    from engine.storage.location import Location


def dedup(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders, URLs (s3://, gs://, az://), @FILE with a path a line, - for stdin.",
            metavar="PATH...",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help="Folder or URL for tables and descriptors; a job that was cut short goes on.", callback=folder_to_write
        ),
    ],
    preset: EnginesPresetOption = None,
    engines: EnginesOption = None,
    scenes: Annotated[
        bool,
        typer.Option("--scenes", help="Also look for videos that fill a part of another's picture: twice the work."),
    ] = False,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    decoder: DecoderOption = None,
    recursive: RecursiveOption = True,
    video_timeout: VideoTimeoutOption = VIDEO_TIMEOUT_S,
    retry_failed: RetryFailedOption = False,
) -> None:
    """Find copies within one collection; nothing is deleted.

    OUTPUT/pairs.csv has each pair whose verdict is `copy` or `review`, with the seconds that they share;
    OUTPUT/clusters.csv the videos that copies connect, with the one to keep: of most pixels, then the longest, then
    the first by path. Files of the same bytes are pairs of the first of them with each of the others;
    objects are not compared by their bytes.

    Example: vsc-engine dedup videos/ --output out/
    """
    from engine.config import load_preset
    from engine.describe.engine import Engine
    from engine.run.duplicates import find_duplicates
    from engine.run.extraction import ExtractionOptions
    from engine.run.plan import choose_workers
    from engine.storage.location import location
    from engine.video.discovery import discover

    folder = location(output)
    found = discover(map(location, paths), is_recursive=recursive, ids_are_paths=True)
    opened = open_engines(engines, preset_name=preset)
    chosen = opened.manifest.preset if preset is None else load_preset(preset)
    if chosen.gate.mode != "off":
        chosen = chosen.with_gate(enabled=False)
    with goes_on():
        duplicates = find_duplicates(
            Engine.open(opened, preset=chosen, decoder=decoder),
            found.media,
            output=folder,
            workers=choose_workers(opened.manifest, num_workers=workers, num_gpus=gpus),
            options=ExtractionOptions(video_timeout_s=video_timeout, retry_failed=retry_failed),
            use_scenes=scenes,
            progress=progress,
        )
    _write(folder, duplicates.pairs, duplicates.clusters)
    verdicts = [pair.verdict for pair in duplicates.pairs]
    say(
        f"{duplicates.num_videos} videos: {verdicts.count('copy')} pairs of copies in {len(duplicates.clusters)} "
        f"clusters, {verdicts.count('review')} pairs to review; see clusters.csv and pairs.csv in {output}"
    )
    finish(
        [*found.failures, *duplicates.failures],
        known_failures=duplicates.known_failures,
        failures_csv=folder / "failures.csv",
        result={
            "output": output,
            "num_videos": duplicates.num_videos,
            "num_copy": verdicts.count("copy"),
            "num_same_bytes": sum(pair.has_same_bytes for pair in duplicates.pairs),
            "num_review": verdicts.count("review"),
            "clusters": [
                {"keep": cluster[0].video_id, "others": [member.video_id for member in cluster[1:]]}
                for cluster in duplicates.clusters
            ],
        },
    )


def _write(output: Location, pairs: Sequence[DuplicatePair], clusters: Sequence[Sequence[Member]]) -> None:
    from engine.store.tables import write_rows

    times = ("first_start", "first_end", "second_start", "second_end")
    columns = {
        **dict.fromkeys(("first", "second", "verdict"), str),
        "score": float,
        "same_bytes": bool,
        **dict.fromkeys((*times, "speed"), float),
        "mirrored": bool,
        "num_inliers": int,
    }
    rows = []
    for pair in pairs:
        match = pair.match
        segment = [None] * 7 if match is None else [
            match.query_start_s, match.query_end_s, match.ref_start_s, match.ref_end_s, match.speed, match.mirrored,
            match.num_inliers,
        ]  # fmt: skip
        rows.append([pair.first, pair.second, pair.verdict, pair.score, pair.has_same_bytes, *segment])
    write_rows(output / "pairs.csv", columns, rows)
    write_rows(
        output / "clusters.csv",
        {"cluster": float, "keep": bool, "path": str, "width": float, "height": float, "duration_s": float},
        [
            [number, place == 0, member.video_id, *member.size_px, member.duration_s]
            for number, cluster in enumerate(clusters, start=1)
            for place, member in enumerate(cluster)
        ],
    )
