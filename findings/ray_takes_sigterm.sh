#!/usr/bin/env bash
# Ray 2.60.0: ray.init() takes SIGTERM away from the program that calls it, and ray.shutdown() does not give it back.
#
# Seen: a handler that was set with signal.signal() before ray.init() is not set afterwards; signal.getsignal() names a
# function of Ray's. After ray.shutdown() Python still names that function, while the kernel says that the process
# catches SIGTERM no longer at all. In between a driver that is asked to stop runs neither handler: one in C++ prints a
# stack trace, and the process ends by SIGABRT (exit status 134 in a shell), not as the program meant to.
# Who hits it: drivers that clean up when systemd, Kubernetes or Slurm stop them, and whoever reads their exit status.
# Way round: keep signal.getsignal(signal.SIGTERM) and set it again right after ray.init().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cat > "$folder/show.py" <<'PYTHON'
import logging
import os
import signal
from pathlib import Path

import ray

stopped = []


def stop(number, frame):
    stopped.append(number)


def state():
    status = Path("/proc/self/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1), signal.getsignal(signal.SIGTERM) is stop


signal.signal(signal.SIGTERM, stop)
before = state()
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
after = state()
ray.shutdown()
left = state()
print(f"caught, by the program's own handler: before {before}, after init {after}, after shutdown {left}")
assert before == (True, True), before
assert after == (True, False), after
assert left == (False, False), left
signal.signal(signal.SIGTERM, stop)
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
signal.signal(signal.SIGTERM, stop)
os.kill(os.getpid(), signal.SIGTERM)
ray.shutdown()
print(f"set again after init: called {len(stopped)} times")
assert stopped == [signal.SIGTERM], stopped
PYTHON
export RAY_USAGE_STATS_ENABLED=0
"$folder/venv/bin/python" "$folder/show.py"
echo "as found"
