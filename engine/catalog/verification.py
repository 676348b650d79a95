"""Whether the tables of a catalogue hold what was written: every row is read and compared with checksums."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.catalog.adding import rows_sha256
from engine.catalog.records import Verification
from engine.catalog.shares import Shares, share_of
from engine.catalog.tables import Entry, Tables
from engine.errors import StoreError

_VIDEOS_AT_ONCE = 256
_AGAIN = "remove it and add it again"


def verify_shares(shares: Shares) -> Verification:
    """Read all rows of the versions that are open. Raises ``StoreError`` where not even the videos can be read."""
    found = [_verify(tables) for tables in shares.tables]
    misplaced = [
        f"'{video_id}': it lies on share {place}, not on share {share_of(video_id, num_shares=len(found))}; restore "
        "both from a copy"
        for place, tables in enumerate(shares.tables)
        for video_id in tables.entries()
        if share_of(video_id, num_shares=len(found)) != place
    ]
    return Verification(
        num_videos=sum(item.num_videos for item in found),
        num_rows=sum(item.num_rows for item in found),
        num_orphan_rows=sum(item.num_orphan_rows for item in found),
        problems=(*misplaced, *(problem for item in found for problem in item.problems)),
    )


def _verify(tables: Tables) -> Verification:
    entries, damaged = sorted(tables.entries().values(), key=lambda entry: entry.revision), tables.damaged_entries()
    problems: list[str] = []
    for start in range(0, len(entries), _VIDEOS_AT_ONCE):
        problems += _problems(tables, entries[start : start + _VIDEOS_AT_ONCE], damaged=damaged)
    num_orphan_rows = 0
    try:
        if tables.num_indexed_rows():
            tables.check_index()
    except StoreError as error:
        problems.append(f"the index: {error}; without the file indexed.json it is not used, and made anew by an `add`")
    try:
        num_orphan_rows = sum(tables.orphans().values())
    except StoreError as error:
        problems.append(str(error))
    num_rows = sum(entry.video.num_rows for entry in entries)
    return Verification(len(entries), num_rows, num_orphan_rows, tuple(problems))


def _problems(tables: Tables, entries: Sequence[Entry], *, damaged: Collection[str]) -> list[str]:
    try:
        found = tables.read_rows([entry.revision for entry in entries])
    except StoreError as error:
        if len(entries) == 1:
            return [f"'{entries[0].video.video_id}': {error}"]
        return [problem for entry in entries for problem in _problems(tables, [entry], damaged=damaged)]
    problems = []
    for entry in entries:
        video_id, rows = entry.video.video_id, found.get(entry.revision)
        if video_id in damaged:
            problems.append(f"'{video_id}': what the table says of it is not what was written; {_AGAIN}")
        elif rows is None or len(rows.descriptors) != entry.video.num_rows:
            problems.append(f"'{video_id}': rows are missing; {_AGAIN}")
        elif rows_sha256(rows.timestamps, rows.descriptors) != entry.rows_sha256:
            problems.append(f"'{video_id}': its rows are not those that were added; {_AGAIN}")
    return problems
