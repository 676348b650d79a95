"""``vsc-engine search``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from engine.cli.options import (
    GpusOption,
    PresetOption,
    QueriesOption,
    ReferencesOption,
    SearchClusterOption,
    not_of_the_web,
    search_device,
)
from engine.console import say


def search(
    queries: QueriesOption,
    references: ReferencesOption,
    output: Annotated[
        str, typer.Option(help="Table of candidate pairs to write: .csv, .jsonl or .parquet.", callback=not_of_the_web)
    ],
    preset: PresetOption = "lite",
    retrieve_per_query: Annotated[
        int | None, typer.Option(min=1, help="Frame pairs per query, on average; default: as in the preset, 1200.")
    ] = None,
    candidates_per_query: Annotated[
        int | None, typer.Option(min=1, help="Video pairs per query, on average; default: as in the preset, 25.")
    ] = None,
    gpus: GpusOption = None,
    cluster: SearchClusterOption = None,
) -> None:
    """Find candidate pairs by exact search with one global threshold.

    Example: vsc-engine search --queries n/queries.npz --references n/references.npz --output candidates.csv
    """
    from engine.config import load_preset
    from engine.errors import ConfigError
    from engine.search.candidates import find_candidates
    from engine.search.exact import global_top_k
    from engine.search.exact_copies import read_sides
    from engine.search.rows import RowSearch
    from engine.storage.location import location
    from engine.store.tables import check_table_suffix, write_candidates

    table = location(output)
    check_table_suffix(table)
    if gpus is not None and cluster is not None:
        raise ConfigError("--gpus and --cluster exclude each other: the nodes of a cluster search on their CPUs")
    device = search_device(gpus)
    where = str(device)
    row_search: RowSearch = partial(global_top_k, device=device)
    if cluster is not None:
        from engine.run.cluster_search import ClusterSearch

        where = f"the Ray cluster {cluster}"
        row_search = ClusterSearch.at(cluster)
    config = load_preset(preset).search
    candidates = find_candidates(
        *read_sides(location(queries), location(references), device=device),
        config=config.model_copy(
            update={
                "retrieve_per_query": retrieve_per_query or config.retrieve_per_query,
                "candidates_per_query": candidates_per_query or config.candidates_per_query,
            }
        ),
        search=row_search,
    )
    write_candidates(table, candidates)
    say(f"{len(candidates)} candidate pairs are in {output} (compared on {where})")
