#!/usr/bin/env bash
# Ray 2.60.0 prints what it has to say of workers that die on the standard output of the driver, also where it was
# started with log_to_driver=False.
#
# Seen: "(raylet) A worker died or was killed while executing a task by an unexpected system error. ..." on stdout, some
# time after an actor ended; nothing on stderr. The messages are printed with "is_err": False by a thread of their own.
# Who hits it: whoever prints data on stdout, such as JSON for another program, from a process that uses Ray.
# Way round: none that is public; ray._private.worker._worker_logs_enabled = False before ray.init.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cat > "$folder/show.py" <<'PYTHON'
import os
import signal
import sys
import time

import ray
from ray._private import worker

worker._worker_logs_enabled = sys.argv[1] == "as-it-is"
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote
class Actor:
    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


try:
    ray.get(Actor.remote().end.remote())
except ray.exceptions.RayActorError:
    time.sleep(5)
PYTHON
export RAY_USAGE_STATS_ENABLED=0
"$folder/venv/bin/python" "$folder/show.py" as-it-is > "$folder/as-it-is.txt"
"$folder/venv/bin/python" "$folder/show.py" silenced > "$folder/silenced.txt"
cut -c1-160 "$folder/as-it-is.txt"
grep -q '(raylet).*A worker died or was killed' "$folder/as-it-is.txt"
test ! -s "$folder/silenced.txt"
echo "as found"
