"""``vsc-engine normalize``."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import (
    EnginesOption,
    GpusOption,
    NormSetOption,
    QueriesOption,
    ReferencesOption,
    not_of_the_web,
    open_engines,
    search_device,
)
from engine.console import say


def normalize(
    queries: QueriesOption,
    references: ReferencesOption,
    output: Annotated[
        str, typer.Option(help="Folder or URL for queries.npz and references.npz.", callback=not_of_the_web)
    ],
    norm_set: NormSetOption = None,
    engines: EnginesOption = None,
    beta: Annotated[
        float | None, typer.Option(help="Strength of the normalization; default: as in the preset of the engines.")
    ] = None,
    nk: Annotated[
        int | None, typer.Option(min=1, help="Nearest norm-set rows that are averaged; default: as in the preset.")
    ] = None,
    gpus: GpusOption = None,
) -> None:
    """Adapt descriptors so that their inner products are scores normalized against a norm set.

    Example: vsc-engine normalize --queries out/queries --references out/references --output out/normalized
    """
    import numpy as np

    from engine.search.exact_copies import read_queries
    from engine.search.score_norm import ScoreNormalizer
    from engine.storage.location import location
    from engine.store.challenge_npz import write_npz
    from engine.store.store import read_descriptors

    opened = open_engines(engines)
    if norm_set is None:
        rows = opened.norm_set()
        say(f"norm set: the one that came with the engines in {opened.folder}, {len(rows)} rows")
    else:
        rows = np.concatenate([item.descriptors for item in read_descriptors(location(norm_set), role="reference")])
    config = opened.manifest.preset.score_norm
    normalizer = ScoreNormalizer.fit(rows, beta=config.beta if beta is None else beta, nk=nk or config.nk)
    device = search_device(gpus)
    ref_rows = read_descriptors(location(references), role="reference")
    query_rows = read_queries(location(queries), ref_rows, device=device)
    write_npz(location(output) / "queries.npz", normalizer.queries(query_rows, device=device))
    write_npz(location(output) / "references.npz", normalizer.references(ref_rows))
    say(f"normalized descriptors are in {output} (compared on {device})")
