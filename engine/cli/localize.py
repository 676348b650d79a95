"""``vsc-engine localize``."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import PresetOption, QueriesOption, ReferencesOption, not_of_the_web
from engine.console import say


def localize(
    queries: QueriesOption,
    references: ReferencesOption,
    candidates: Annotated[str, typer.Option(help="Table of candidate pairs: .csv, .jsonl or .parquet.")],
    output: Annotated[str, typer.Option(help="Table of matches to write, in the same forms.", callback=not_of_the_web)],
    preset: PresetOption = "lite",
    rescored: Annotated[
        str | None, typer.Option(help="Table of candidate pairs to write, with the scores that `run` gives them.")
    ] = None,
    cosine: Annotated[bool, typer.Option("--cosine", help="The descriptors are not score-normalized.")] = False,
) -> None:
    """Find the copied segments of candidate pairs.

    Example: vsc-engine localize --queries q.npz --references r.npz --candidates c.csv --output m.csv
    """
    from engine.config import load_preset
    from engine.search.exact_copies import read_sides
    from engine.search.localization import localize_candidates, rescore
    from engine.storage.location import location
    from engine.store.tables import (
        check_ids,
        check_table_suffix,
        read_candidates,
        write_candidates,
        write_matches,
    )

    tables = [location(table) for table in (output, rescored) if table is not None]
    for table in tables:
        check_table_suffix(table)
    query_rows, ref_rows = read_sides(location(queries), location(references))
    pairs = read_candidates(location(candidates))
    check_ids(
        pairs,
        query_ids={item.video_id for item in query_rows},
        ref_ids={item.video_id for item in ref_rows},
        source=location(candidates),
    )
    config = load_preset(preset)
    matches = localize_candidates(query_rows, ref_rows, pairs, config=config.localization, use_score_norm=not cosine)
    if rescored is not None:
        write_candidates(tables[1], rescore(pairs, matches, segment_weight=config.search.segment_weight))
    write_matches(tables[0], sorted(matches, key=lambda match: match.score, reverse=True))
    say(f"{len(matches)} matches are in {output}")
