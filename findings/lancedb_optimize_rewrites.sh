#!/usr/bin/env bash
# LanceDB 0.40.0: Table.optimize() after each batch of rows writes the whole table again each time, up to a million rows,
# and keeps what it replaced (by default for seven days): the work and the disk space grow with the square of the rows.
#
# Seen, 20 batches of 20,000 rows of 64 dimensions: the data files of the table take 11 times the bytes of the rows with
# optimize() after each batch, once those bytes without, and twice with one optimize() at the end. Files of less than
# 1,048,576 rows count as small, and are merged with each other whenever there is a new one; neither this number nor a
# compaction alone can be asked for from Python. With rows of 2 KB a million rows, added 50,000 at a time, took 18 GB.
# Who hits it: whoever follows the advice to call optimize() after adding, because rows outside an index are slow.
# Way round: call it once for many rows (a tenth of the table, say), search the rows outside the index by other means
# until then, and pass a short cleanup_older_than.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lancedb==0.40.0 numpy==2.4.6 pyarrow==26.0.1
cat > "$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

BATCHES, ROWS, DIMS = 20, 20_000, 64
folder = Path(sys.argv[1])
schema = pa.schema([pa.field("vector", pa.list_(pa.float32(), DIMS))])
rng = np.random.default_rng(0)


def times_the_rows(name, *, each, last):
    table = lancedb.connect(folder).create_table(name, schema=schema)
    for _ in range(BATCHES):
        values = rng.standard_normal(ROWS * DIMS, dtype=np.float32)
        table.add(pa.table({"vector": pa.FixedSizeListArray.from_arrays(values, DIMS)}, schema=schema))
        if each:
            table.optimize()
    if last:
        table.optimize()
    size = sum(path.stat().st_size for path in (folder / f"{name}.lance" / "data").iterdir())
    return size / (BATCHES * ROWS * DIMS * 4)


each = times_the_rows("each", each=True, last=False)
never = times_the_rows("never", each=False, last=False)
once = times_the_rows("once", each=False, last=True)
print(f"bytes on disk / bytes of the rows: {each:.1f} optimized after each batch, {never:.1f} never, {once:.1f} at the end")
assert each > 8, each
assert never < 1.2, never
assert 1.8 < once < 2.2, once
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder/tables"
echo "as found"
