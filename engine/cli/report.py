"""``vsc-engine report``."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.options import (
    AllowHttpOption,
    AllowPrivateOption,
    RecursiveOption,
    page_to_write,
    print_json,
    web_access,
)
from engine.console import say


def report(
    matches: Annotated[
        str, typer.Option(help="Table of matches, as `run` and `localize` write it: .csv, .jsonl or .parquet.")
    ],
    queries: Annotated[str, typer.Option(help="Folder or URL of query videos, or @FILE with a path a line.")],
    references: Annotated[str, typer.Option(help="The same for reference videos.")],
    output: Annotated[str, typer.Option(help="HTML page to write.", callback=page_to_write)],
    query_rows: Annotated[
        str | None, typer.Option(help="Descriptors of the queries, for score matrices: store folder or .npz.")
    ] = None,
    ref_rows: Annotated[str | None, typer.Option(help="The same for the references.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="How many matches get pictures, the best first.")] = 100,
    recursive: RecursiveOption = True,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
) -> None:
    """Show matches to a person: one HTML page with pictures of both videos.

    Example: vsc-engine report --matches out/matches.csv --queries q/ --references r/ --output report.html
    """
    from engine.errors import ConfigError
    from engine.evidence.report import write_report
    from engine.storage.location import location
    from engine.store.store import read_descriptors
    from engine.store.tables import read_matches
    from engine.video.discovery import discover

    web = web_access(allow_http=allow_http, allow_private=allow_private_addresses)
    found = read_matches(location(matches))
    paths = [
        {item.video_id: item.path for item in discover([location(folder)], is_recursive=recursive, web=web).media}
        for folder in (queries, references)
    ]
    asked = {match.query_id for match in found}, {match.ref_id for match in found}
    for role, ids, known, folder in zip(("queries", "references"), asked, paths, (queries, references), strict=True):
        missing = sorted(ids.difference(known))
        if missing and len(missing) == len(ids):
            raise ConfigError(f"none of the {len(ids)} {role} of {matches} is in {folder}, such as '{missing[0]}'")
        if missing:
            say(f"{len(missing)} of {len(ids)} {role} are not in {folder}, such as {missing[0]}: no pictures of them")
    rows = [
        None if source is None else {item.video_id: item for item in read_descriptors(location(source))}
        for source in (query_rows, ref_rows)
    ]
    write_report(location(output), found, *paths, query_rows=rows[0], ref_rows=rows[1], max_pictured=pictures)
    print_json({"output": str(output), "num_matches": len(found), "num_pictured": min(pictures, len(found))})
