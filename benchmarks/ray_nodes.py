"""A Ray cluster of small nodes on this machine, and the CPU seconds that it takes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def local_nodes(count: int, *, store_bytes: int) -> Iterator[str]:
    """Nodes with a core each and an object store of ``store_bytes``; yields the address."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster()
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, object_store_memory=store_bytes, include_dashboard=False)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def tree_cpu_s() -> float:
    """CPU seconds of this process and all that it started, also by way of others, those that ended included."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(path.parent.name)
        children[int(fields[1])].append(pid)
        ticks[pid] = sum(map(int, fields[11:15]))  # user and system, its own and of children that ended
    waiting, total = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children[pid]
    return total / os.sysconf("SC_CLK_TCK")
