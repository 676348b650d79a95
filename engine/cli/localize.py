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
    query_videos: Annotated[
        str | None, typer.Option(help="Folder of the queries' videos: also compare pictures, as `run` does.")
    ] = None,
    reference_videos: Annotated[
        str | None, typer.Option(help="Folder of the references' videos, for the same.")
    ] = None,
    cosine: Annotated[bool, typer.Option("--cosine", help="The descriptors are not score-normalized.")] = False,
) -> None:
    """Find the copied segments of candidate pairs.

    Example: vsc-engine localize --queries q.npz --references r.npz --candidates c.csv --output m.csv
    """
    from engine.config import load_preset
    from engine.errors import ConfigError
    from engine.run.pictures import look_at_best
    from engine.search.comparison import ranked
    from engine.search.exact_copies import read_sides
    from engine.search.localization import localize_candidates
    from engine.search.score_norm import is_normalized
    from engine.storage.location import location
    from engine.store.tables import (
        check_ids,
        check_table_suffix,
        read_candidates,
        write_candidates,
        write_matches,
    )
    from engine.video.discovery import discover

    tables = [location(table) for table in (output, rescored) if table is not None]
    for table in tables:
        check_table_suffix(table)
    if (query_videos is None) != (reference_videos is None):
        raise ConfigError("--query-videos and --reference-videos belong together: pictures of both are compared")
    videos = None
    if query_videos is not None and reference_videos is not None:
        videos = [
            {item.video_id: item.path for item in discover([location(folder)]).media}
            for folder in (query_videos, reference_videos)
        ]
    query_rows, ref_rows = read_sides(location(queries), location(references))
    if not cosine and not is_normalized(ref_rows):
        say(
            f"warning: the rows of {references} are not score-normalized, and segments are looked for as if they were; "
            "give what `vsc-engine normalize` makes of both sides, or --cosine"
        )
    pairs = read_candidates(location(candidates))
    check_ids(
        pairs,
        query_ids={item.video_id for item in query_rows},
        ref_ids={item.video_id for item in ref_rows},
        source=location(candidates),
    )
    config = load_preset(preset)
    matches = localize_candidates(query_rows, ref_rows, pairs, config=config.localization, use_score_norm=not cosine)
    pairs, matches = ranked(pairs, matches, preset=config)
    if videos is not None:
        pairs, matches = look_at_best(pairs, matches, *videos, preset=config)
    if rescored is not None:
        write_candidates(tables[1], pairs)
    write_matches(tables[0], matches)
    say(f"{len(matches)} matches are in {output}")
