"""What keeping descriptors as float16 saves and costs: `python -m benchmarks.store_dtype SET --work FOLDER`.

The videos of an evaluation set are described once, into stores of float32, whose copies as float16 hold what an
extraction with ``--store-dtype float16`` would have written. Both are searched and localized as `vsc-engine run` does.
Bytes and CPU seconds are those of the store of the queries, read whole and checked, the least of several times.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.data_sets import find_data_set
from benchmarks.harness import OutputOption, command_line, report
from engine.build.cache import user_engines
from engine.console import progress
from engine.describe.engine import Engine
from engine.evaluate.figures import candidate_figures, match_figures
from engine.evaluate.ids import in_ids_of
from engine.records import CandidatePair, Match, Role
from engine.run.extraction import extract_to_store
from engine.run.plan import choose_workers
from engine.runtime.engines_directory import EnginesDirectory
from engine.search.comparison import compare, prepare
from engine.store.shards import StoreDtype
from engine.store.store import StoreWriter, read_complete_manifest, read_descriptors, stored_videos
from engine.store.tables import read_ground_truth
from engine.video.discovery import find_videos

_TIMES_READ = 20
_COMBINATIONS: tuple[tuple[StoreDtype, StoreDtype], ...] = (
    ("float32", "float32"),
    ("float16", "float16"),
    ("float32", "float16"),
)


@dataclass(frozen=True)
class ReadFigures:
    """Of a store: bytes of its shards and CPU microseconds of reading it, for each row."""

    dtype: StoreDtype
    num_rows: int
    bytes_per_row: float
    read_us_per_row: float


@dataclass(frozen=True)
class SearchFigures:
    """What a search reaches, and how far the scores of pairs are from those of the search in float32 alone.

    ``num_pairs_of_one``: pairs that only one of both searches has among its candidates.
    """

    queries: StoreDtype
    references: StoreDtype
    uap: float
    segment_ap: float
    largest_change: float
    num_pairs_of_one: int


def copy_store(source: Path, target: Path, *, dtype: StoreDtype) -> None:
    """Write the videos of a complete store into another one, in another type; what is there already is kept."""
    with StoreWriter(target, identity=read_complete_manifest(source).identity, dtype=dtype) as writer:
        writer.add_copies(video for video in stored_videos(source) if video.descriptors.video_id not in writer.finished)
        writer.finish()


def read_figures(store: Path, *, num_times: int = _TIMES_READ) -> ReadFigures:
    """Size of a store, and what reading it takes."""
    num_bytes = sum(path.stat().st_size for path in store.glob("shard-*.parquet"))
    seconds = []
    num_rows = 0
    for _ in range(num_times):
        start_s = time.process_time()
        num_rows = sum(map(len, read_descriptors(store)))
        seconds.append(time.process_time() - start_s)
    dtype = read_complete_manifest(store).dtype
    return ReadFigures(dtype, num_rows, num_bytes / num_rows, min(seconds) / num_rows * 1e6)


def changes(found: Sequence[CandidatePair], expected: Sequence[CandidatePair]) -> tuple[float, int]:
    """The largest difference of the scores of one pair, and how many pairs are in one of both lists only."""
    one, other = ({(pair.query_id, pair.ref_id): pair.score for pair in pairs} for pairs in (found, expected))
    shared = one.keys() & other.keys()
    return max((abs(one[pair] - other[pair]) for pair in shared), default=0.0), len(one.keys() ^ other.keys())


def _describe(data_set: Path, engines: EnginesDirectory, work: Path) -> None:
    data = find_data_set(data_set)
    sides: tuple[tuple[Role, Path], ...] = (("query", data.queries), ("reference", data.references))
    for role, videos in sides:
        media = find_videos([videos])
        with progress(role, len(media)) as advance:
            extract_to_store(
                Engine.open(engines),
                media,
                role=role,
                output=work / f"{role}_float32",
                workers=choose_workers(engines.manifest, num_workers=None, num_gpus=None),
                on_done=advance,
            )
        copy_store(work / f"{role}_float32", work / f"{role}_float16", dtype="float16")


def _search(
    engines: EnginesDirectory, work: Path, queries: StoreDtype, references: StoreDtype
) -> tuple[list[CandidatePair], list[Match]]:
    sides = read_descriptors(work / f"query_{queries}"), read_descriptors(work / f"reference_{references}")
    preset = engines.manifest.preset
    prepared = prepare(*sides, preset=preset, norm_rows=engines.norm_set())
    return compare(*prepared, preset=preset, use_score_norm=True)


def _search_figures(data_set: Path, engines: EnginesDirectory, work: Path) -> list[SearchFigures]:
    data = find_data_set(data_set)
    ids = [frozenset(item.video_id for item in find_videos([side])) for side in (data.queries, data.references)]
    truth = in_ids_of(read_ground_truth(data.ground_truth), query_ids=ids[0], ref_ids=ids[1])
    expected: list[CandidatePair] = []
    rows = []
    for queries, references in _COMBINATIONS:
        candidates, matches = _search(engines, work, queries, references)
        expected = expected or candidates
        found = candidate_figures(candidates, truth) | match_figures(matches, truth)
        uap, segment_ap = float(found["uap"] or 0), float(found["segment_ap"] or 0)
        rows.append(SearchFigures(queries, references, uap, segment_ap, *changes(candidates, expected)))
    return rows


def main(
    data_set: Annotated[Path, typer.Argument(help="Evaluation set: queries, references and ground truth.")],
    work: Annotated[Path, typer.Option(help="Folder for the stores, which are kept for another time.")],
    engines: Annotated[Path | None, typer.Option(help="Engines directory; default: preset lite.")] = None,
    output: OutputOption = None,
) -> None:
    """Compare stores of float16 with those of float32: bytes, reading, uAP.

    Example: python -m benchmarks.store_dtype val/ --work stores/
    """
    opened = user_engines("lite") if engines is None else EnginesDirectory.open(engines)
    _describe(data_set, opened, work)
    dtypes: tuple[StoreDtype, ...] = ("float32", "float16")
    stores = [read_figures(work / f"query_{dtype}") for dtype in dtypes]
    searches = _search_figures(data_set, opened, work)
    lines = [f"{'store of the queries':<26}{'rows':>8}{'bytes a row':>13}{'reading, CPU us a row':>23}"]
    for store in stores:
        lines.append(f"{store.dtype:<26}{store.num_rows:>8}{store.bytes_per_row:>13.0f}{store.read_us_per_row:>23.2f}")
    titles = f"{'uAP':>9}{'segment AP':>12}{'largest change':>16}{'pairs of one':>14}"
    lines += ["", f"{'queries':<13}{'references':<13}{titles}"]
    for row in searches:
        figures = f"{row.uap:>9.5f}{row.segment_ap:>12.5f}{row.largest_change:>16.5f}{row.num_pairs_of_one:>14}"
        lines.append(f"{row.queries:<13}{row.references:<13}{figures}")
    facts = {"stores": [asdict(store) for store in stores], "searches": [asdict(row) for row in searches]}
    report("store_dtype", lines=lines, figures={"preset": opened.manifest.preset.name, **facts}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
