"""What each part brings: `python -m benchmarks.ablation DATA... [--exact-copies DATA] [--output benchmarks/results]`.

Every row is what `vsc-engine run` gives with the same switches or preset. Descriptors that two rows share are computed
once, and the seconds of a row count them as if they had been computed for it. Nothing is random here; the sets that
`benchmarks.val_hard` makes follow from their seeds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import OutputOption, command_line, report
from engine.build.cache import user_engines
from engine.config import EnsembleGate, Localization, NoGate, Preset, Search
from engine.console import progress
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.evaluate.metrics import micro_average_precision, segment_average_precision
from engine.records import Role
from engine.run.protocol import RunSettings, run_protocol
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.tables import read_ground_truth

STORES: dict[str, Role] = {"references": "reference", "queries": "query"}


@dataclass(frozen=True)
class Row:
    """One configuration: the engines and the switches of `vsc-engine run`."""

    name: str
    engines: EnginesDirectory
    preset: Preset
    use_score_norm: bool = True


@dataclass(frozen=True)
class Figures:
    """What a row reaches on a set. ``seconds``: of the whole run, loading the engines included."""

    row: str
    data: str
    uap: float
    segment_ap: float
    num_failures: int
    seconds: float


def planned_rows(engines: EnginesDirectory, *, one_model: EnginesDirectory | None) -> list[Row]:
    """The rows of the ablation; ``one_model``: engines of the first model alone, where ``engines`` have two.

    Raises ``ConfigError`` where ``engines`` have several models and ``one_model`` is missing.
    """
    preset = engines.manifest.preset
    if (len(preset.models) > 1) != (one_model is not None):
        raise ConfigError(
            f"{engines.folder} have {len(preset.models)} models: the engines of the first model alone (--one-model) "
            "are needed with two, and make no sense with one"
        )
    first = one_model or engines
    final = first.manifest.preset.with_gate(enabled=False)
    every = final.model_copy(update={"localization": Localization(), "search": Search()})
    base = _with_scenes(every, enabled=False)
    rows = [
        Row("base", first, base, use_score_norm=False),
        Row("+ score normalization", first, base),
        Row("+ scenes", first, _with_scenes(every, scope="video", max_insets=0)),
    ]
    if every.scenes.scope == "shots":
        rows.append(Row("+ shots", first, _with_scenes(every, max_insets=0)))
    if every.scenes.max_insets:
        rows.append(Row("+ insets", first, every))
    unseen = final.model_copy(update={"localization": final.localization.model_copy(update={"verified_per_query": 0})})
    if unseen != every:
        rows.append(Row("+ segments", first, unseen))
    if final != unseen:
        rows.append(Row("+ pictures", first, final))
    if has_gate(final):
        rows.append(Row("+ gate", first, final.with_gate(enabled=True)))
    if one_model is not None:
        rows.append(Row("+ second model", engines, preset.with_gate(enabled=has_gate(preset))))
    return rows


def gate_rows(engines: EnginesDirectory) -> list[Row]:
    """The rows of the exact-copy experiment. Raises ``ConfigError`` where the engines have no gate for it."""
    preset = engines.manifest.preset
    if not isinstance(preset.gate, EnsembleGate):
        raise ConfigError(f"{engines.folder} have no edit gate that could count near-identical queries")
    gated = preset.with_gate(enabled=True)
    strict = preset.gate.model_copy(update={"mode": "vsc", "near_identical_cosine": None})
    return [
        Row("gate off", engines, preset.with_gate(enabled=False)),
        Row("gate on, near-identical not counted", engines, preset.model_copy(update={"gate": strict})),
        Row("gate on", engines, gated),
    ]


def has_gate(preset: Preset) -> bool:
    """Whether the preset has an edit gate that can be turned on."""
    return not isinstance(preset.gate, NoGate)


def _with_scenes(preset: Preset, **changes: bool | int | str) -> Preset:
    return preset.model_copy(update={"scenes": preset.scenes.model_copy(update=changes)})


@dataclass
class StageTimer:
    """Seconds of each stage of a run that says its progress, which is shown on the way."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Time one stage."""
        start_s = time.perf_counter()
        with progress(title, total) as advance:
            yield advance
        self.seconds[title] = time.perf_counter() - start_s


@dataclass
class Bench:
    """Measures rows in ``folder``, which keeps all descriptors. ``norm_set``: videos, or None for the engines' own."""

    folder: Path
    norm_set: Path | None = None
    _described: dict[str, tuple[Path, float]] = field(default_factory=dict)

    def measure(self, row: Row, data: DataSet) -> Figures:
        """Run the protocol on a set with the switches of a row."""
        output = self.folder / f"{len(list(self.folder.iterdir())):03d}"
        keys = {name: self._key(row, data, name) for name in STORES}
        reused_s = {}
        for name, key in keys.items():
            if key in self._described:
                store, reused_s[name] = self._described[key]
                shutil.copytree(store, output / name)
        timer = StageTimer()
        start_s = time.perf_counter()
        result = run_protocol(_settings(row, data, output, norm_set=self.norm_set), progress=timer)
        elapsed_s = time.perf_counter() - start_s
        for name, key in keys.items():
            self._described.setdefault(key, (output / name, timer.seconds[name]))
        truth = read_ground_truth(data.ground_truth)
        uap = micro_average_precision(result.candidates, truth.pairs).average_precision
        segment_ap = segment_average_precision(result.matches, truth.matches or ()).average_precision
        seconds = elapsed_s + sum(original_s - timer.seconds[name] for name, original_s in reused_s.items())
        return Figures(row.name, data.name, uap, segment_ap, len(result.failures), seconds)

    def _key(self, row: Row, data: DataSet, name: str) -> str:
        videos = data.references if name == "references" else data.queries
        identity = Engine.open(row.engines, preset=row.preset).identity(role=STORES[name])
        return json.dumps([str(videos.resolve()), identity], sort_keys=True)


def _settings(row: Row, data: DataSet, output: Path, *, norm_set: Path | None) -> RunSettings:
    return RunSettings(
        queries=data.queries,
        references=data.references,
        norm_set=norm_set,
        output=output,
        engines=row.engines,
        preset=row.preset,
        use_score_norm=row.use_score_norm,
    )


def table(results: Sequence[Figures]) -> list[str]:
    """Lines with a heading: a line for each result."""
    lines = [f"{'set':<16}{'row':<48}{'uAP':>8}{'segment AP':>12}{'seconds':>9}"]
    for figures in results:
        columns = f"{figures.uap:>8.4f}{figures.segment_ap:>12.4f}{figures.seconds:>9.1f}"
        lines.append(f"{figures.data:<16}{figures.row:<48}{columns}")
    return lines


def main(
    data: Annotated[list[Path] | None, typer.Argument(metavar="DATA...", help="Folders of evaluation sets.")] = None,
    exact_copies: Annotated[Path | None, typer.Option(help="A set with exact copies, for the gate.")] = None,
    engines: Annotated[Path | None, typer.Option(help="Engines directory; default: preset lite.")] = None,
    one_model: Annotated[
        Path | None, typer.Option(help="Engines of the first model alone, where --engines have two.")
    ] = None,
    norm_set: Annotated[
        Path | None, typer.Option(help="Folder of videos; default: the norm set of the engines.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--row", help="Of DATA, measure only this row; may be repeated.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Measure what each part brings on evaluation sets and report one table.

    Example: python -m benchmarks.ablation val/ val-hard/ --exact-copies exact-copies/
    """
    directory = user_engines("lite") if engines is None else EnginesDirectory.open(engines)
    first = None if one_model is None else EnginesDirectory.open(one_model)
    rows = planned_rows(directory, one_model=first)
    unknown = sorted(set(only or ()).difference(row.name for row in rows))
    if unknown:
        raise ConfigError(f"no row has the name {unknown[0]!r}; expected {', '.join(row.name for row in rows)}")
    rows = [row for row in rows if not only or row.name in only]
    planned = [(row, find_data_set(folder)) for folder in data or [] for row in rows]
    if exact_copies is not None:
        planned += [(row, find_data_set(exact_copies)) for row in gate_rows(directory)]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), norm_set=norm_set)
        results = [bench.measure(row, data) for row, data in planned]
    figures = {"results": [asdict(item) for item in results]}
    report("ablation", lines=table(results), figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
