"""``vsc-engine extract``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.cli.options import (
    VIDEO_TIMEOUT_S,
    AllowHttpOption,
    AllowPrivateOption,
    ClusterOption,
    DecoderOption,
    EnginesOption,
    FpsOption,
    GateOption,
    GpusOption,
    MaxPixelsOption,
    RecursiveOption,
    RetryFailedOption,
    RoleName,
    SamplingOption,
    ScenesOption,
    VideoTimeoutOption,
    WorkersOption,
    chosen_preset,
    chosen_workers,
    finish,
    goes_on,
    not_of_the_web,
    open_engines,
    print_json,
    web_access,
)
from engine.console import progress, say

if TYPE_CHECKING:
    from engine.describe.engine import Engine
    from engine.records import Media


def extract(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders, URLs (s3://, gs://, az://), @FILE with a path a line, - for stdin.",
            metavar="PATH...",
        ),
    ],
    role: Annotated[RoleName, typer.Option(help="Queries pass the gate and are split into scenes.")],
    output: Annotated[
        str, typer.Option(help="Store folder or URL, or a challenge file ending in .npz.", callback=not_of_the_web)
    ],
    engines: EnginesOption = None,
    fps: FpsOption = None,
    sampling: SamplingOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    cluster: ClusterOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what each worker would do and hold; no GPU needed.")
    ] = False,
    raw_embeddings: Annotated[bool, typer.Option("--raw-embeddings", help="Leave the PCA out, for fit-pca.")] = False,
    scenes: ScenesOption = True,
    gate: GateOption = None,
    decoder: DecoderOption = None,
    recursive: RecursiveOption = True,
    max_pixels: MaxPixelsOption = None,
    video_timeout: VideoTimeoutOption = VIDEO_TIMEOUT_S,
    retry_failed: RetryFailedOption = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop what the store holds of videos that are not among PATH.")
    ] = False,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
    shard: Annotated[
        str | None,
        typer.Option(help="Describe only this share of the videos, such as 3/8, into a store of its own; see merge."),
    ] = None,
    store_dtype: Annotated[
        Literal["float32", "float16"] | None,
        typer.Option(
            help="Keep descriptors so in the store: float16 takes half the space and rounds to 3 digits; default: as "
            "the store does, float32 in a new one.",
        ),
    ] = None,
) -> None:
    """Describe videos, beside those that the store holds already.

    Example: vsc-engine extract uploads/ --role query --output out/queries
    """
    from engine.describe.engine import Engine
    from engine.errors import ConfigError
    from engine.run.extraction import ExtractionOptions, extract_to_npz, extract_to_store
    from engine.storage.location import location
    from engine.store.input_shard import InputShard
    from engine.video.discovery import discover

    target = location(output)
    if target.suffix not in {"", ".npz"} and not target.is_dir():
        raise ConfigError(
            f"{output} has the suffix {target.suffix!r}; descriptors are written to a store, a folder whose name has "
            "no suffix, or to a challenge file ending in .npz"
        )
    share = None if shard is None else InputShard.parse(shard)
    if share is not None and target.suffix == ".npz":
        raise ConfigError(
            f"--shard writes a store, and {output} is no folder; `vsc-engine merge` makes one of them all"
        )
    if store_dtype is not None and target.suffix == ".npz":
        raise ConfigError(f"--store-dtype is of a store, and {output} is no folder; an .npz holds float32")
    web = web_access(allow_http=allow_http, allow_private=allow_private_addresses)
    found = discover(map(location, paths), is_recursive=recursive, web=web)
    if share is not None:
        media = [item for item in found.media if share.holds(item.video_id)]
        found = replace(
            found, media=media, failures=tuple(item for item in found.failures if share.holds(item.video_id))
        )
    media = found.media
    opened = open_engines(engines)
    engine = Engine.open(
        opened,
        preset=chosen_preset(
            opened.manifest.preset, fps=fps, sampling=sampling, scenes=scenes, gate=gate, max_pixels=max_pixels
        ),
        raw_embeddings=raw_embeddings,
        decoder=decoder,
    )
    if plan:
        _print_plan(engine, media, num_workers=workers, num_gpus=gpus)
        return
    chosen = chosen_workers(opened.manifest, num_workers=workers, num_gpus=gpus, cluster=cluster)
    if not engine.use_pca and not raw_embeddings:
        say(f"{opened.folder} has no PCA yet: writing raw embeddings (fit one with `vsc-engine fit-pca`)")
    write = extract_to_npz if target.suffix == ".npz" else extract_to_store
    options = ExtractionOptions(
        video_timeout_s=video_timeout, retry_failed=retry_failed, prune=prune, shard=share, dtype=store_dtype
    )
    with goes_on(), progress("extract", len(media)) as advance:
        summary = write(engine, media, role=role, output=target, workers=chosen, options=options, on_done=advance)
    failures = [*found.failures, *summary.failures]
    dropped = f", {summary.num_dropped} dropped" if prune else ""
    say(f"{summary.num_described} described, {summary.num_kept} there already, {len(failures)} failed{dropped}")
    figures: dict[str, object] = {"output": str(output), "num_videos": len(media), "stages_s": dict(summary.stages_s)}
    if summary.traffic is not None:
        figures |= {f"remote_{name}": count for name, count in asdict(summary.traffic).items()}
    if engine.decoder.leaves_to_pyav:
        figures["num_left_to_pyav"] = sum(summary.refusals.values())
    is_npz = target.suffix == ".npz"
    failures_csv = target.with_name(f"{target.stem}_failures.csv") if is_npz else target / "failures.csv"
    finish(failures, known_failures=summary.known_failures, failures_csv=failures_csv, result=figures)


def _print_plan(engine: Engine, media: Sequence[Media], *, num_workers: int | None, num_gpus: int | None) -> None:
    from engine.run.extraction import probe_durations
    from engine.run.plan import Memory, forecast, imagined_workers

    manifest = engine.engines.manifest
    workers = imagined_workers(num_workers=num_workers, num_gpus=num_gpus)
    shares = forecast(probe_durations(media, num_workers=min(workers.count, len(media))), num_workers=workers.count)
    memory = Memory.of(manifest, engine.preset)
    say(f"{len(media)} videos, the longest first, to whoever is free; with workers of equal speed:")
    say(f"{'':<12}{'videos':>9}{'hours':>9}{'longest, hours':>16}")
    for place, share in enumerate(shares):
        hours = f"{share.footage_s / 3600:>9.2f}{share.longest_s / 3600:>16.2f}"
        say(f"{workers.name(place):<12}{share.num_videos:>9}{hours}")
    say(
        f"memory of each, at least: {memory.engine_bytes / 2**20:.0f} MiB engines ({manifest.backend}) and "
        f"{memory.buffer_bytes / 2**20:.0f} MiB buffers of inputs and outputs, as the manifest has their sizes; what "
        "engines need while they run, decoders and libraries come on top"
    )
    placement = [
        {"name": workers.name(place), "num_videos": share.num_videos, "footage_s": share.footage_s}
        for place, share in enumerate(shares)
    ]
    print_json({"num_videos": len(media), "workers": placement, **asdict(memory)})
