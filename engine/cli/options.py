"""What several verbs share: options, opening engines, and how a verb ends. stdout is data, stderr is for people."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.console import say
from engine.video import DecoderName

if TYPE_CHECKING:  # a verb imports what it needs when it runs, so that --help and usage errors answer at once
    from engine.config import Preset, SampledFrames
    from engine.records import Failure
    from engine.run.plan import ClusterWorkers, Workers
    from engine.runtime.engines_directory import EnginesDirectory
    from engine.runtime.manifest import Manifest
    from engine.search.faiss_backend import SearchDevice
    from engine.storage.location import Location, WebAccess

EXIT_CONFIG = 1
EXIT_SOME_FAILED = 3
EXIT_STOPPED = {128 + number: name for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"))}
EXIT_OF_VERDICT = {"copy": 0, "review": 10, "no match": 11}
VIDEO_TIMEOUT_S = 600.0  # that of `engine.run.extraction`, which is imported only when a verb runs

RoleName = Literal["query", "reference"]


def _complete_preset(incomplete: str) -> list[str]:
    from engine.config import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


EnginesOption = Annotated[
    Path | None,
    typer.Option("--engines", help="Engines directory; default: preset lite, built into the cache on first use."),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that describe videos on the CPU and share its cores; default: 1.")
]
GpusOption = Annotated[int | None, typer.Option(min=1, help="GPUs to use, one process each.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="Describe on the nodes of a Ray cluster, of which this machine is one; --workers and --gpus then count "
        "for each node. All nodes must have the videos and the engines under the same paths.",
    ),
]
SearchClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="auto|HOST:PORT",
        help="Search on the nodes of a Ray cluster, of which this machine is one.",
    ),
]
FpsOption = Annotated[
    float | None, typer.Option(min=0.01, help="Sampled frames per second; default: as in the preset, 1.")
]
SamplingOption = Annotated[
    Literal["all", "keyframes"] | None,
    typer.Option(help="Sample all frames, or key frames alone, which decode faster; default: as in the preset, all."),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels of the largest picture taken; default: as in the preset, 67108864 (8192x8192)."),
]
ScenesOption = Annotated[bool, typer.Option("--scenes/--no-scenes", help="Split queries into frame scenes.")]
GateOption = Annotated[
    bool | None,
    typer.Option("--gate/--no-gate", help="Stop queries that show no sign of an edit; default: as in the preset."),
]
RecursiveOption = Annotated[bool, typer.Option("--recursive/--no-recursive", help="Look into sub-folders too.")]
DecoderOption = Annotated[
    DecoderName | None,
    typer.Option(help="Decode with PyAV or, on the device of the engines, with DALI; default: DALI on a GPU."),
]
VideoTimeoutOption = Annotated[
    float,
    typer.Option(min=1, help="Seconds that a video of up to a minute may take; longer ones so much for each minute."),
]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try files again that are known to give nothing.")
]
PresetOption = Annotated[
    str, typer.Option(help="Preset: a name, such as lite or vsc22, or a .toml file.", autocompletion=_complete_preset)
]
EnginesPresetOption = Annotated[
    str | None,
    typer.Option(help="Preset to use (default: lite, or that of --engines).", autocompletion=_complete_preset),
]
AllowHttpOption = Annotated[
    bool, typer.Option("--allow-http", help="Also read URLs of the web, http:// and https://, such as signed ones.")
]
AllowPrivateOption = Annotated[
    bool,
    typer.Option("--allow-private-addresses", help="With --allow-http: also from addresses that are not public."),
]
NormSetOption = Annotated[
    str | None,
    typer.Option(help="Descriptors of a norm set: store (folder or URL) or .npz. Default: what came with the engines."),
]
QueriesOption = Annotated[str, typer.Option(help="Descriptors of the queries: store (folder or URL) or .npz.")]
ReferencesOption = Annotated[str, typer.Option(help="Descriptors of the references: store (folder or URL) or .npz.")]


class StoppedError(Exception):
    """A command was stopped that goes on when it is given again; ``status`` is that of the process."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@contextmanager
def goes_on() -> Iterator[None]:
    """Where the block is stopped by Ctrl-C or SIGTERM, let people know that what was written before is not lost."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError(128 + signal.SIGINT) from error
    except SystemExit as error:
        if error.code != 128 + signal.SIGTERM:
            raise
        raise StoppedError(128 + signal.SIGTERM) from error


def open_engines(folder: Path | None, *, preset_name: str | None = None) -> EnginesDirectory:
    """The engines of ``folder``, or those of a preset in the user's cache, by default ``lite``."""
    from engine.build.cache import user_engines
    from engine.runtime.engines_directory import EnginesDirectory

    return user_engines(preset_name or "lite") if folder is None else EnginesDirectory.open(folder)


def web_access(*, allow_http: bool, allow_private: bool) -> WebAccess | None:
    """What URLs of the web may do; None refuses them."""
    from engine.storage.location import WebAccess

    return WebAccess(allow_private=allow_private) if allow_http else None


_FILE_SUFFIXES = frozenset((".csv", ".html", ".json", ".jsonl", ".npz", ".parquet"))


def not_of_the_web(place: str | None) -> str | None:
    """Refuse a URL of the web where something is written, before anything is computed."""
    from engine.errors import ConfigError
    from engine.storage.location import RemotePath, location

    found = None if place is None else location(place)
    if isinstance(found, RemotePath) and found.is_web:
        raise ConfigError(f"{found}: files of the web are only read; write to an object store or a folder")
    return place


def page_to_write(place: str | None) -> str | None:
    """As `not_of_the_web`, and refuse what is no name of a page, before anything is computed."""
    from engine.errors import ConfigError

    if place is not None and Path(place).is_dir():
        raise ConfigError(f"{place} is a folder; name the page, such as {Path(place) / 'page.html'}")
    return _named(place, "the page is HTML", ".html", ".htm")


def picture_to_write(place: str | None) -> str | None:
    """As `not_of_the_web`, and refuse what is no name of a PNG, before anything is computed."""
    return _named(place, "the picture is a PNG", ".png")


def _named(place: str | None, what: str, *suffixes: str) -> str | None:
    from engine.errors import ConfigError

    if place is not None and Path(place).suffix.lower() not in suffixes:
        raise ConfigError(f"{place}: {what}; give it a name that ends with {suffixes[0]}")
    return not_of_the_web(place)


def folder_to_write(place: str) -> str:
    """As `not_of_the_web`, and refuse the name of a table or page, before anything is computed."""
    from engine.errors import ConfigError

    suffix = Path(place).suffix.lower()
    if suffix in _FILE_SUFFIXES and not Path(place).is_dir():
        raise ConfigError(f"{place} has the suffix {suffix!r}; a folder of several files is written; name one")
    not_of_the_web(place)
    return place


def only_local(path: Path | None) -> Path | None:
    """Refuse a URL where only a path of this machine is taken: as a path it would be a folder with a colon."""
    from engine.errors import ConfigError
    from engine.storage.location import was_url

    if path is not None and was_url(path):
        raise ConfigError(f"{path}: a path of this machine is needed here, not a URL")
    return path


def chosen_workers(
    manifest: Manifest, *, num_workers: int | None, num_gpus: int | None, cluster: str | None
) -> Workers | ClusterWorkers:
    """The workers of this machine, or of a cluster where that was asked for. Raises as `choose_workers` does."""
    from engine.run.plan import choose_cluster_workers, choose_workers

    if cluster is None:
        return choose_workers(manifest, num_workers=num_workers, num_gpus=num_gpus)
    return choose_cluster_workers(manifest, cluster, num_workers=num_workers, num_gpus=num_gpus)


def chosen_preset(
    preset: Preset,
    *,
    fps: float | None,
    sampling: SampledFrames | None,
    scenes: bool,
    gate: bool | None,
    max_pixels: int | None,
) -> Preset:
    """A preset with what the options of a verb change in it."""
    if fps is not None:
        preset = preset.with_fps(fps)
    if sampling is not None:
        preset = preset.with_sampled_frames(sampling)
    if max_pixels is not None:
        preset = preset.with_max_pixels(max_pixels)
    if not scenes:
        preset = preset.model_copy(update={"scenes": preset.scenes.model_copy(update={"enabled": False})})
    return preset if gate is None else preset.with_gate(enabled=gate)


def search_device(num_gpus: int | None) -> SearchDevice:
    """Where rows are compared; checked, so that a missing GPU is named before anything is read."""
    from engine.search.faiss_backend import SearchDevice

    device = SearchDevice(num_gpus=num_gpus or 0)
    device.check()
    return device


def print_json(values: object) -> None:
    """Print an object, or another value of JSON, as a line of its own; for names see `engine.console.as_utf8`."""
    print(json.dumps(_as_utf8(values)), flush=True)


def _as_utf8(value: object) -> object:
    from engine.storage.location import as_text

    if isinstance(value, Mapping):
        return {key: _as_utf8(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_utf8(item) for item in value]
    return as_text(value)


def finish(
    failures: Sequence[Failure], *, known_failures: Sequence[Failure], failures_csv: Location, result: Mapping[str, Any]
) -> None:
    """List the failed videos (named on stderr as they failed) in a CSV, print the result, set the exit status.

    ``known_failures``, of before, are listed, too, but do not count for the status.
    """
    from engine.store.tables import write_failures

    write_failures(failures_csv, [*failures, *known_failures])
    if failures:
        say(f"{len(failures)} videos failed, listed in {failures_csv}")
    if known_failures:
        say(
            f"{len(known_failures)} files are known to give nothing and were not tried again (--retry-failed does), "
            f"listed in {failures_csv}"
        )
    print_json({**result, "num_failures": len(failures), "num_known_failures": len(known_failures)})
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
