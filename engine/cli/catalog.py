"""``vsc-engine catalog create|add|remove|list|info|verify|backup|match``."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import (
    EXIT_OF_VERDICT,
    EXIT_SOME_FAILED,
    AllowHttpOption,
    AllowPrivateOption,
    ClusterOption,
    DecoderOption,
    EnginesOption,
    FpsOption,
    GateOption,
    GpusOption,
    MaxPixelsOption,
    NormSetOption,
    SamplingOption,
    ScenesOption,
    SearchClusterOption,
    WorkersOption,
    chosen_preset,
    chosen_workers,
    finish,
    goes_on,
    not_of_the_web,
    open_engines,
    page_to_write,
    print_json,
    web_access,
)
from engine.console import progress, say

if TYPE_CHECKING:
    from engine.catalog.records import CatalogAnswer
    from engine.storage.location import Location

catalog = typer.Typer(
    no_args_is_help=True,
    help="""Keep a catalogue of references, and compare uploads with it.

    Example: vsc-engine catalog create catalogue/ && vsc-engine catalog add catalogue/ videos/
    """,
)

FolderArgument = Annotated[str, typer.Argument(help="Folder or URL of the catalogue.", metavar="CATALOG")]
OwnEnginesOption = Annotated[
    Path | None, typer.Option("--engines", help="Engines directory; default: the one that the catalogue was made with.")
]


@catalog.command()
def create(
    folder: FolderArgument,
    engines: EnginesOption = None,
    norm_set: NormSetOption = None,
    fps: FpsOption = None,
    sampling: SamplingOption = None,
    scenes: ScenesOption = True,
    gate: GateOption = None,
    max_pixels: MaxPixelsOption = None,
    score_norm: Annotated[bool, typer.Option("--score-norm/--no-score-norm", help="Normalize scores.")] = True,
    shares: Annotated[
        int, typer.Option(min=1, help="Spread the videos over so many folders, which other machines can search.")
    ] = 1,
    milvus: Annotated[
        str | None,
        typer.Option(
            help="Keep and search the rows in this Milvus server; its token is read from MILVUS_TOKEN.",
            metavar="http://HOST:19530[/DATABASE]",
        ),
    ] = None,
) -> None:
    """Make an empty catalogue; engines, settings and norm set are kept in it, and hold for all its videos and uploads.

    Example: vsc-engine catalog create catalogue/
    """
    from engine.catalog.catalog import Catalog

    opened = open_engines(engines)
    made = Catalog.create(
        folder,
        engines=None if engines is None else opened,
        preset=chosen_preset(
            opened.manifest.preset, fps=fps, sampling=sampling, scenes=scenes, gate=gate, max_pixels=max_pixels
        ),
        norm_set=norm_set,
        use_score_norm=score_norm,
        num_shares=shares,
        milvus=milvus,
    )
    say(f"{folder} is a catalogue now, for engines {made.manifest.identity['engines']}")


@catalog.command()
def add(
    folder: FolderArgument,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders, URLs, @FILE with a path a line, descriptors (stores, .npz), other catalogues.",
            metavar="PATH...",
        ),
    ],
    engines: OwnEnginesOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    cluster: ClusterOption = None,
    decoder: DecoderOption = None,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
) -> None:
    """Add references; what changed is replaced, what is there is kept. An add that was cut short goes on.

    Of another catalogue the rows are taken if its engines and settings are the same; if not, the files of its videos
    are described again, under their ids there.

    Example: vsc-engine catalog add catalogue/ videos/
    """
    from engine.catalog.catalog import Catalog
    from engine.storage.location import location

    with Catalog.open(folder, engines=engines, decoder=decoder) as opened:
        manifest = opened.described_by().engines.manifest
        chosen = chosen_workers(manifest, num_workers=workers, num_gpus=gpus, cluster=cluster)
        web = web_access(allow_http=allow_http, allow_private=allow_private_addresses)
        with goes_on():
            report = opened.add(paths, web=web, workers=chosen, progress=progress)
    say(
        f"{len(report.added)} added, {len(report.replaced)} replaced, {len(report.kept)} kept, "
        f"{len(report.failures)} failed"
    )
    figures = {name: len(getattr(report, name)) for name in ("added", "replaced", "kept")}
    finish(
        report.failures,
        known_failures=(),
        failures_csv=location(folder) / "failures.csv",
        result={"catalog": str(folder), **figures},
    )


@catalog.command()
def remove(
    folder: FolderArgument,
    video_ids: Annotated[list[str], typer.Argument(help="Ids as `list` shows them.", metavar="ID...")],
) -> None:
    """Take videos out of the catalogue; no file of yours is touched.

    Example: vsc-engine catalog remove catalogue/ clip_1 clip_2
    """
    from engine.catalog.catalog import Catalog

    Catalog.open(folder).remove(video_ids)
    print_json({"catalog": str(folder), "removed": len(set(video_ids))})


@catalog.command(name="list")
def list_videos(folder: FolderArgument) -> None:
    """Print a JSON object for each video: id, path, SHA-256, seconds, rows, warnings.

    Example: vsc-engine catalog list catalogue/
    """
    from engine.catalog.catalog import Catalog
    from engine.catalog.documents import VideoDocument

    for video in Catalog.open(folder).list():
        print_json(asdict(VideoDocument.of(video)))


@catalog.command()
def info(folder: FolderArgument) -> None:
    """Print facts of the catalogue as a JSON object: videos, rows, hours, engines, norm set, size.

    Example: vsc-engine catalog info catalogue/
    """
    from engine.catalog.catalog import Catalog

    print_json(asdict(Catalog.open(folder).info()))


@catalog.command()
def verify(folder: FolderArgument) -> None:
    """Read everything in the catalogue and compare it with the checksums; exit status 3 if something is damaged.

    Example: vsc-engine catalog verify catalogue/
    """
    from engine.catalog.catalog import Catalog

    found = Catalog.open(folder).verify()
    for problem in found.problems:
        say(problem)
    print_json(asdict(found))
    if found.problems:
        raise typer.Exit(EXIT_SOME_FAILED)


@catalog.command()
def backup(
    folder: FolderArgument,
    output: Annotated[
        str, typer.Argument(help="New folder or URL for the copy.", metavar="NEW_FOLDER", callback=not_of_the_web)
    ],
) -> None:
    """Copy the catalogue while nobody writes to it; the copy is a catalogue too, and is used in its place to restore.

    Example: vsc-engine catalog backup catalogue/ /backup/catalogue-2026-11-28
    """
    from engine.catalog.catalog import Catalog

    Catalog.open(folder).backup(output)
    print_json({"catalog": folder, "backup": output})


@catalog.command()
def match(
    folder: FolderArgument,
    uploads: Annotated[list[str], typer.Argument(help="Video files, folders of them, URLs.", metavar="UPLOAD...")],
    engines: OwnEnginesOption = None,
    decoder: DecoderOption = None,
    cluster: SearchClusterOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also print the pairs and segments that no verdict speaks of.")
    ] = False,
    report: Annotated[
        str | None, typer.Option(help="HTML page of what is told of, with pictures, to write.", callback=page_to_write)
    ] = None,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help="End with 0 for a copy, 10 for a review, 11 for no match; 3 if an upload failed."
        ),
    ] = False,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
) -> None:
    """Compare uploads with the catalogue; prints a JSON object for each: verdict, candidates and matches, best first.

    The verdict is `copy`, `review` or `no match`. Of uploads that share nothing with the catalogue one in a hundred may
    be called a copy, and one in five be a case for review, however large it is. Pictures of the best pairs are
    compared; what agrees (`num_inliers`; null: nobody looked) raises scores. Where there are several uploads, the exit
    status is that of the strongest verdict.

    Example: vsc-engine catalog match catalogue/ upload.mp4 --exit-code
    """
    from engine.catalog.catalog import Catalog
    from engine.catalog.documents import AnswerDocument, write_answers_report
    from engine.errors import ConfigError, MediaError
    from engine.storage.location import location
    from engine.video.discovery import discover

    verdicts: Counter[str] = Counter()
    answers: list[CatalogAnswer] = []
    with Catalog.open(folder, engines=engines, decoder=decoder, cluster=cluster) as opened:
        web = web_access(allow_http=allow_http, allow_private=allow_private_addresses)
        found = discover(map(location, uploads), web=web)
        num_failed = len(found.failures)
        for failure in found.failures:
            _print_error(failure.video_id, failure.path, failure.reason)
        opened.engine()
        for item in found.media:
            start_s = time.perf_counter()
            try:
                answer = opened.match(item.path)
            except MediaError as error:
                num_failed += 1
                say(f"failed: {error}")
                _print_error(item.video_id, item.path, str(error))
                continue
            seconds = round(time.perf_counter() - start_s, 3)
            verdicts[answer.verdict or _NO_VERDICT] += 1
            answers.append(answer)
            say(_line(answer, seconds))
            document = AnswerDocument.of(answer, path=str(item.path), every=every)
            print_json({**asdict(document), "seconds": seconds})
    if report is not None:
        write_answers_report(location(report), answers, {item.video_id: item.path for item in found.media}, every=every)
    counts = {"catalog": str(folder), "num_uploads": len(found.media) + len(found.failures), "num_failures": num_failed}
    print_json({**counts, "verdicts": dict(verdicts)})
    if num_failed:
        raise typer.Exit(EXIT_SOME_FAILED)
    if exit_code:
        if verdicts[_NO_VERDICT]:
            raise ConfigError(f"{folder} has no verdicts: its preset is not calibrated, or its scores not normalized")
        raise typer.Exit(next(code for verdict, code in EXIT_OF_VERDICT.items() if verdicts[verdict]))


_NO_VERDICT = "none"


def _print_error(query_id: str, path: Location, reason: str) -> None:
    print_json({"query_id": query_id, "path": str(path), "error": reason})


def _line(answer: CatalogAnswer, seconds: float) -> str:
    if not answer.candidates:
        return f"{answer.query_id}: the catalogue is empty, {seconds:.2f} s"
    if answer.duplicates:
        return f"{answer.query_id}: copy, the same bytes as {answer.videos[answer.duplicates[0]].path}, {seconds:.2f} s"
    best = answer.candidates[0]
    verdict = "likeliest" if answer.verdict is None else f"{answer.verdict}; likeliest"
    return f"{answer.query_id}: {verdict} {answer.videos[best.ref_id].path}, score {best.score:.3f}, {seconds:.2f} s"
