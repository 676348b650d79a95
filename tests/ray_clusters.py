"""Ray clusters of small nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import REPOSITORY

OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def ray_cluster(*, num_nodes: int = 2) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` of nodes of one CPU, to which this process is not connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        patch.setenv("PYTHONPATH", path)  # actors import the package, and the scripts of tests
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        try:
            for _ in range(num_nodes):
                add_node(cluster)
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)


def kill_node(cluster: Any, node: Any) -> None:
    """SIGKILL to all processes of a node."""
    cluster.remove_node(node, allow_graceful=False)
