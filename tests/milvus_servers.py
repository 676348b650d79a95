"""Milvus servers for tests: Milvus Lite behind gRPC, on a port of this machine, in a process of its own.

In the process of the clients, the server shares their interpreter and their garbage collector, and now and then did not
answer for ten seconds.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

from tests.conftest import REPOSITORY


@contextmanager
def running_milvus(folder: Path, *, token: str | None = None, port: int = 0) -> Iterator[str]:
    """Serve the databases in a folder; yields the address.

    ``token``: what clients must send, as a Milvus with authentication asks of them (Milvus Lite has none).
    """
    arguments = [str(folder), str(port), *([] if token is None else [token])]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.milvus_servers", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        answer = server.stdout.readline().decode().strip()
        assert answer, f"the server ended with {server.wait()}"
        try:
            yield f"http://127.0.0.1:{answer}"
        finally:
            server.stdin.close()


def _serve(folder: str, port: str, token: str | None = None) -> None:
    """Serve until stdin ends, which it does when the test that started this ends, however that comes."""
    database = MilvusLite(folder)
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[] if token is None else [_Authentication(token)])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)  # noqa: T201 - for `running_milvus`
    server.start()
    sys.stdin.read()
    server.stop(grace=None).wait()
    database.close()


class _Authentication(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._expected = base64.b64encode(token.encode()).decode()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        if dict(details.invocation_metadata).get("authorization") == self._expected:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def _refuse(_: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password are correct")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
