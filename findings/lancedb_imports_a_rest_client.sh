#!/usr/bin/env bash
# LanceDB 0.40.0 (lance-namespace 0.13.0): `import lancedb` builds the client of a REST service, which a database in a
# folder never asks, and takes twice as long with it.
#
# Seen: of the 699 modules that the import loads 163 are lance_namespace_urllib3_client, a client made by the
# OpenAPI generator with hundreds of pydantic models and of functions under @validate_call, each of which builds a
# validator. They take 58% of the time of the import, which is 2 to 4 CPU seconds.
# Who hits it: command-line tools and short-lived workers that open a table, look and end.
# Way round: none that is supported; keep a process that has imported it, or import it late.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lancedb==0.40.0 lance-namespace==0.13.0 lance-namespace-urllib3-client==0.13.0 \
  numpy==2.4.6 pyarrow==26.0.1 pydantic==2.14.3
"$folder/venv/bin/python" -c "import lancedb"  # writes what Python compiles
cat > "$folder/show.py" <<'PYTHON'
import subprocess
import sys

CLIENT = "lance_namespace_urllib3_client"
told = subprocess.run(
    [sys.executable, "-X", "importtime", "-c", "import lancedb"], capture_output=True, text=True, check=True
).stderr
rows = [line.removeprefix("import time:").split("|") for line in told.splitlines() if "[us]" not in line]
own_us = {name.strip(): int(own) for own, _, name in (row for row in rows if len(row) == 3)}
of_client = {name: us for name, us in own_us.items() if name.split(".")[0] == CLIENT}
share = sum(of_client.values()) / sum(own_us.values())
print(f"{len(of_client)} of {len(own_us)} modules are those of {CLIENT}: {share:.0%} of the time of the import")
assert len(of_client) > 100, len(of_client)
assert share > 0.25, share
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
echo "as found"
