"""The command line: reads arguments, calls the library, prints. stdout is data, stderr is for people.

Exit status: 0 all well, 1 usage or configuration error, 3 done but some videos failed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from engine.console import LogLines, progress, say
from engine.errors import ConfigError, EngineError
from engine.version import __version__

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help and usage errors answer at once
    from engine.config import Preset
    from engine.figures import Figures
    from engine.nearest import SearchDevice
    from engine.pipeline import Engine
    from engine.records import CandidatePair, Descriptors, Failure, Media, Role


EXIT_CONFIG = 1
EXIT_SOME_FAILED = 3

app = typer.Typer(
    name="vsc-engine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turns video files into copy-detection descriptors and tells which pairs are copies.",
)


class RoleName(StrEnum):
    """The two sides of a search."""

    query = "query"
    reference = "reference"


class DecoderChoice(StrEnum):
    """What decodes videos."""

    pyav = "pyav"
    dali = "dali"


EnginesOption = Annotated[
    Path | None,
    typer.Option("--engines", help="Engines directory; default: preset lite, built into the cache on first use."),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that describe videos on the CPU and share its cores; default: 1.")
]
GpusOption = Annotated[int | None, typer.Option(min=1, help="GPUs to use, one process each.")]
FpsOption = Annotated[float, typer.Option(min=0.01, help="Sampled frames per second.")]
ScenesOption = Annotated[bool, typer.Option("--scenes/--no-scenes", help="Split queries into frame scenes.")]
GateOption = Annotated[
    bool | None,
    typer.Option("--gate/--no-gate", help="Stop queries that show no sign of an edit; default: as in the preset."),
]
DecoderOption = Annotated[
    DecoderChoice | None,
    typer.Option(help="Decode with PyAV or, on the device of the engines, with DALI; default: DALI on a GPU."),
]
QueriesOption = Annotated[Path, typer.Option(help="Descriptors of the queries: store folder or .npz.")]
ReferencesOption = Annotated[Path, typer.Option(help="Descriptors of the references: store folder or .npz.")]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        typer.main.get_command(app).main(args=argv, prog_name="vsc-engine")
    except (EngineError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        say(f"vsc-engine: {error}")
        sys.exit(EXIT_CONFIG)
    except SystemExit as status:
        sys.exit(EXIT_CONFIG if status.code == 2 else status.code)  # 2 is the parser's word for wrong usage
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[LogLines()])
    logging.getLogger("engine").setLevel(level)
    if version:
        print(f"vsc-engine {__version__}")
        raise typer.Exit


@app.command()
def build(
    output: Annotated[Path, typer.Option(help="Engines directory to write.")],
    preset: Annotated[str, typer.Option(help="lite, vsc22, or a preset file (.toml).")] = "lite",
    checkpoints: Annotated[Path | None, typer.Option(help="Folder with the reference solution's checkpoints.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Seeded random weights.")] = False,
    backend: Annotated[Literal["openvino", "tensorrt"], typer.Option(help="What runs the engines.")] = "openvino",
    pca: Annotated[Path | None, typer.Option(help="Fitted PCA to fold in: .npz, or the reference's .pkl.")] = None,
    flavour: Annotated[
        Literal["tensorrt", "tensorrt_rtx"] | None,
        typer.Option(help="TensorRT for data centres, or TensorRT-RTX; default: the one that is installed."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="GPUs that TensorRT-RTX builds for (default: 8.6 8.9). They need not be there."),
    ] = None,
    more_capabilities: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="CAPABILITY")] = None,
    precision: Annotated[
        Literal["auto", "fp16", "fp32"] | None,
        typer.Option(help="TensorRT: auto (default) takes fp16 for the models that a comparison allows it for."),
    ] = None,
    frontend: Annotated[
        Literal["onnx", "torch-tensorrt"] | None, typer.Option(help="TensorRT: what reads the models; default: onnx.")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="TensorRT: frames in one call; default: 32.")] = None,
) -> None:
    """Export the models of a preset, check the graphs against PyTorch, compile them."""
    from engine.config import load_preset
    from engine.runtime.build import build_engines
    from engine.runtime.compiling import TensorRtOptions

    # The parser gives an option one value; of `--compute-capability 8.6 8.9` the rest arrives as arguments.
    if more_capabilities and not compute_capability:
        raise ConfigError(f"unexpected arguments: {' '.join(more_capabilities)}")
    given: dict[str, Any] = {
        "flavour": flavour,
        "compute_capabilities": tuple(dict.fromkeys([*(compute_capability or ()), *(more_capabilities or ())])),
        "precision": precision,
        "frontend": frontend,
        "max_batch": max_batch,
    }
    options = {name: value for name, value in given.items() if value}
    if options and backend != "tensorrt":
        raise ConfigError(
            "--flavour, --compute-capability, --precision, --frontend and --max-batch are for --backend tensorrt, not "
            f"for {backend}"
        )
    build_engines(
        load_preset(preset),
        output,
        checkpoints=checkpoints,
        random_weights=random_weights,
        backend=backend,
        tensorrt=TensorRtOptions(**options),
        pca=pca,
        progress=say,
    )
    print(output)


@app.command()
def extract(
    paths: Annotated[list[Path], typer.Argument(help="Video files and folders of videos.", metavar="PATH...")],
    role: Annotated[RoleName, typer.Option(help="Queries pass the gate and are split into scenes.")],
    output: Annotated[Path, typer.Option(help="Store folder, or a challenge file ending in .npz.")],
    engines: EnginesOption = None,
    fps: FpsOption = 1.0,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what each worker would do and hold; no GPU needed.")
    ] = False,
    raw_embeddings: Annotated[bool, typer.Option("--raw-embeddings", help="Leave the PCA out, for fit-pca.")] = False,
    scenes: ScenesOption = True,
    gate: GateOption = None,
    decoder: DecoderOption = None,
) -> None:
    """Describe videos."""
    from engine.extraction import extract_to_npz, extract_to_store
    from engine.media import find_videos
    from engine.pipeline import Engine
    from engine.placement import choose_workers

    media = find_videos(paths)
    folder = _engines_folder(engines)
    engine = Engine.open(
        folder,
        preset=_preset(folder, scenes=scenes, gate=gate),
        fps=fps,
        raw_embeddings=raw_embeddings,
        decoder=None if decoder is None else decoder.value,
    )
    if plan:
        _plan(engine, media, num_workers=workers, num_gpus=gpus)
        return
    chosen = choose_workers(engine.manifest, num_workers=workers, num_gpus=gpus)
    if not engine.use_pca and not raw_embeddings:
        say(f"{folder} has no PCA yet: writing raw embeddings (fit one with `vsc-engine fit-pca`)")
    write = extract_to_npz if output.suffix == ".npz" else extract_to_store
    side: Role = role.value
    with progress("extract", len(media)) as advance:
        summary = write(engine, media, role=side, output=output, workers=chosen, on_done=advance)
    say(f"{summary.num_described} described, {summary.num_kept} were there already, {len(summary.failures)} failed")
    figures = {"output": str(output), "num_videos": len(media), "stages_s": dict(summary.stages_s)}
    if engine.decoder.name == "dali":
        figures["num_left_to_pyav"] = sum(summary.refusals.values())
    _finish(summary.failures, failures_csv=_failures_path(output), result=figures)


def _plan(engine: Engine, media: Sequence[Media], *, num_workers: int | None, num_gpus: int | None) -> None:
    from engine.extraction import probe_durations
    from engine.placement import Memory, forecast, imagined_workers

    workers = imagined_workers(num_workers=num_workers, num_gpus=num_gpus)
    shares = forecast(probe_durations(media, num_workers=min(workers.count, len(media))), num_workers=workers.count)
    memory = Memory.of(engine.manifest, engine.preset)
    say(f"{len(media)} videos, the longest first, to whoever is free; with workers of equal speed:")
    say(f"{'':<12}{'videos':>9}{'hours':>9}{'longest, hours':>16}")
    for place, share in enumerate(shares):
        hours = f"{share.footage_s / 3600:>9.2f}{share.longest_s / 3600:>16.2f}"
        say(f"{workers.name(place):<12}{share.num_videos:>9}{hours}")
    say(
        f"memory of each, at least: {memory.engine_bytes / 2**20:.0f} MiB engines ({engine.manifest.backend}) and "
        f"{memory.buffer_bytes / 2**20:.0f} MiB buffers of inputs and outputs, as the manifest has their sizes; what "
        "engines need while they run, decoders and libraries come on top"
    )
    placement = [
        {"name": workers.name(place), "num_videos": share.num_videos, "footage_s": share.footage_s}
        for place, share in enumerate(shares)
    ]
    print(json.dumps({"num_videos": len(media), "workers": placement, **asdict(memory)}))


@app.command("fit-pca")
def fit_pca_command(
    descriptors: Annotated[Path, typer.Argument(help="Raw embeddings: store folder or .npz (extract).")],
    engines: Annotated[Path, typer.Option(help="Engines directory to fold the PCA into.")],
    num_components: Annotated[int | None, typer.Option(min=1, help="Default: the preset's.")] = None,
) -> None:
    """Fit a PCA on raw embeddings and fold it into the ensemble engine."""
    import numpy as np

    from engine.projection import fit_pca
    from engine.runtime.build import set_pca
    from engine.runtime.manifest import read_manifest
    from engine.store import read_descriptors

    manifest = read_manifest(engines)
    rows = np.concatenate([item.descriptors for item in read_descriptors(descriptors)])
    pca = fit_pca(rows, num_components=num_components or manifest.preset.pca.num_components)
    set_pca(engines, pca)
    say(f"PCA of {rows.shape[1]} to {len(pca.components)} dimensions, fitted on {len(rows)} rows, is in {engines}")


@app.command()
def normalize(
    queries: QueriesOption,
    references: ReferencesOption,
    output: Annotated[Path, typer.Option(help="Folder for queries.npz and references.npz.")],
    norm_set: Annotated[
        Path | None,
        typer.Option(help="Descriptors of the norm set: store folder or .npz. Default: what came with the engines."),
    ] = None,
    engines: EnginesOption = None,
    beta: Annotated[float, typer.Option(help="Strength of the normalization.")] = 1.2,
    nk: Annotated[int, typer.Option(min=1, help="Nearest norm-set rows that are averaged.")] = 1,
    gpus: GpusOption = None,
) -> None:
    """Normalize scores against a norm set: adapts descriptors so that inner products are normalized scores."""
    import numpy as np

    from engine.protocol import own_norm_set
    from engine.readmit import read_queries
    from engine.score_norm import ScoreNormalizer
    from engine.store import read_descriptors, write_npz

    if norm_set is None:
        folder = _engines_folder(engines)
        rows = own_norm_set(folder)
        say(f"norm set: the one that came with the engines in {folder}, {len(rows)} rows")
    else:
        rows = np.concatenate([item.descriptors for item in read_descriptors(norm_set, role="reference")])
    normalizer = ScoreNormalizer.fit(rows, beta=beta, nk=nk)
    device = _search_device(gpus)
    ref_rows = read_descriptors(references, role="reference")
    query_rows = read_queries(queries, ref_rows, device=device)
    write_npz(output / "queries.npz", list(normalizer.queries(query_rows, device=device)))
    write_npz(output / "references.npz", list(normalizer.references(ref_rows)))
    say(f"normalized descriptors are in {output}")


@app.command()
def search(
    queries: QueriesOption,
    references: ReferencesOption,
    output: Annotated[Path, typer.Option(help="CSV of candidate pairs to write.")],
    retrieve_per_query: Annotated[int, typer.Option(min=1, help="Frame pairs per query, on average.")] = 1200,
    candidates_per_query: Annotated[int, typer.Option(min=1, help="Video pairs per query, on average.")] = 25,
    gpus: GpusOption = None,
) -> None:
    """Find candidate pairs by exact search with one global threshold."""
    from engine.tables import write_candidates

    candidates = _search(
        queries,
        references,
        device=_search_device(gpus),
        retrieve_per_query=retrieve_per_query,
        candidates_per_query=candidates_per_query,
    )
    write_candidates(output, candidates)
    say(f"{len(candidates)} candidate pairs are in {output}")


def _search_device(num_gpus: int | None) -> SearchDevice:
    from engine.nearest import SearchDevice

    device = SearchDevice(num_gpus=num_gpus or 0)
    device.check()
    say(f"search: FAISS on {device}")
    return device


def _search(queries: Path, references: Path, *, device: SearchDevice, **limits: int) -> list[CandidatePair]:
    from engine.candidates import find_candidates

    query_rows, ref_rows = _read_sides(queries, references, device=device)
    return find_candidates(query_rows, ref_rows, device=device, **limits)


def _read_sides(
    queries: Path, references: Path, *, device: SearchDevice
) -> tuple[list[Descriptors], list[Descriptors]]:
    from engine.readmit import read_queries
    from engine.store import check_same_dimensions, read_descriptors

    ref_rows = read_descriptors(references, role="reference")
    query_rows = read_queries(queries, ref_rows, device=device)
    check_same_dimensions(query_rows, ref_rows)
    return query_rows, ref_rows


@app.command()
def localize(
    queries: QueriesOption,
    references: ReferencesOption,
    candidates: Annotated[Path, typer.Option(help="CSV of candidate pairs.")],
    output: Annotated[Path, typer.Option(help="CSV of matches to write.")],
    cosine: Annotated[bool, typer.Option("--cosine", help="The descriptors are not score-normalized.")] = False,
) -> None:
    """Find the copied segments of candidate pairs."""
    from engine.localize import COSINE, SCORE_NORMALIZED, localize_candidates
    from engine.nearest import CPU
    from engine.tables import check_ids, read_candidates, write_matches

    query_rows, ref_rows = _read_sides(queries, references, device=CPU)
    pairs = read_candidates(candidates)
    check_ids(
        pairs,
        query_ids={item.video_id for item in query_rows},
        ref_ids={item.video_id for item in ref_rows},
        source=candidates,
    )
    matches = localize_candidates(query_rows, ref_rows, pairs, network=COSINE if cosine else SCORE_NORMALIZED)
    write_matches(output, matches)
    say(f"{len(matches)} matches are in {output}")


@app.command()
def evaluate(
    ground_truth: Annotated[Path, typer.Option(help="The challenge's ground-truth CSV, of segments or of pairs.")],
    candidates: Annotated[Path | None, typer.Option(help="CSV of candidate pairs: gives uAP.")] = None,
    matches: Annotated[Path | None, typer.Option(help="CSV of matches: gives the segment metric.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries, to search now.")] = None,
    references: Annotated[Path | None, typer.Option(help="Descriptors of the references, to search now.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the precision-recall curve to write.")] = None,
) -> None:
    """Score candidates (uAP) or matches (segment metric) against ground truth."""
    from engine.figures import candidate_figures, match_figures
    from engine.nearest import CPU
    from engine.tables import read_candidates, read_ground_truth, read_matches

    given = (candidates is not None, matches is not None, queries is not None and references is not None)
    if sum(given) != 1 or (queries is None) != (references is None):
        raise ConfigError("give exactly one of --candidates, --matches, or --queries with --references")
    truth = read_ground_truth(ground_truth)
    if matches is not None:
        figures = match_figures(read_matches(matches), truth, plot=plot)
    elif candidates is not None:
        figures = candidate_figures(read_candidates(candidates), truth, plot=plot)
    elif queries is not None and references is not None:
        figures = candidate_figures(_search(queries, references, device=CPU), truth, plot=plot)
    print(json.dumps(figures))


@app.command()
def run(
    queries: Annotated[Path, typer.Option(help="Folder of query videos.")],
    references: Annotated[Path, typer.Option(help="Folder of reference videos.")],
    output: Annotated[Path, typer.Option(help="Folder for everything; a run in it that was cut short goes on.")],
    norm_set: Annotated[
        Path | None, typer.Option(help="Folder of videos unrelated to both. Default: what came with the engines.")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Ground-truth CSV: adds uAP and the segment metric.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset to use (default: lite, or that of --engines).")] = None,
    engines: EnginesOption = None,
    fps: FpsOption = 1.0,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    scenes: ScenesOption = True,
    gate: GateOption = None,
    decoder: DecoderOption = None,
    score_norm: Annotated[bool, typer.Option("--score-norm/--no-score-norm", help="Normalize scores.")] = True,
) -> None:
    """Do the whole protocol: videos to candidates, matches and, with ground truth, uAP."""
    from engine.figures import candidate_figures, match_figures
    from engine.machine import is_installed
    from engine.protocol import RunSettings, run_protocol
    from engine.tables import read_ground_truth

    truth = None if ground_truth is None else read_ground_truth(ground_truth)
    folder = _engines_folder(engines, preset_name=preset)
    settings = RunSettings(
        queries=queries,
        references=references,
        norm_set=norm_set,
        output=output,
        engines=folder,
        preset=_preset(folder, name=preset, scenes=scenes, gate=gate),
        use_score_norm=score_norm,
        fps=fps,
        num_workers=workers,
        num_gpus=gpus,
        decoder=None if decoder is None else decoder.value,
    )
    result = run_protocol(settings, progress=progress)
    figures: Figures = {"uap": None, "segment_ap": None}
    if truth is not None:
        strange = [pair for pair in truth.pairs if pair[0] not in result.query_ids or pair[1] not in result.ref_ids]
        if strange:
            say(
                f"{len(strange)} of {len(truth.pairs)} true pairs name videos that are not here, such as {min(strange)}"
            )
        plot = output / "precision_recall.png" if is_installed("matplotlib") else None
        figures |= candidate_figures(result.candidates, truth, plot=plot)
        if truth.matches is not None:
            figures |= match_figures(result.matches, truth)
    figures |= {
        "num_queries": len(result.query_ids),
        "num_references": len(result.ref_ids),
        "num_candidates": len(result.candidates),
        "num_matches": len(result.matches),
        "output": str(output),
    }
    _finish(result.failures, failures_csv=output / "failures.csv", result=figures)


@app.command()
def info() -> None:
    """Say what this machine can run, and why the rest cannot."""
    from engine.machine import capabilities, describe_machine

    print(f"vsc-engine {__version__}, {describe_machine()}")
    for part in capabilities():
        print(f"{'yes' if part.available else 'no ':4} {part.name}: {part.detail}")


def _engines_folder(engines: Path | None, *, preset_name: str | None = None) -> Path:
    from engine.runtime.cache import user_engines

    return engines if engines is not None else user_engines(preset_name or "lite")


def _preset(folder: Path, *, scenes: bool, gate: bool | None, name: str | None = None) -> Preset:
    from engine.config import load_preset
    from engine.runtime.manifest import read_manifest

    preset = read_manifest(folder).preset if name is None else load_preset(name)
    if gate is not None:
        preset = preset.with_gate(enabled=gate)
    if scenes:
        return preset
    return preset.model_copy(update={"scenes": preset.scenes.model_copy(update={"enabled": False})})


def _failures_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}_failures.csv") if output.suffix == ".npz" else output / "failures.csv"


def _finish(failures: Sequence[Failure], *, failures_csv: Path, result: Mapping[str, Any]) -> None:
    """List the failed videos (named on stderr as they failed) in a CSV, print the result, set the exit status."""
    from engine.tables import write_failures

    write_failures(failures_csv, list(failures))
    if failures:
        say(f"{len(failures)} videos failed, listed in {failures_csv}")
    print(json.dumps({**result, "num_failures": len(failures)}))
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
