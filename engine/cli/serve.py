"""``vsc-engine serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.catalog import FolderArgument, OwnEnginesOption
from engine.cli.options import DecoderOption, GpusOption, only_local, print_json
from engine.console import say

KEYS_VARIABLE = "VSC_ENGINE_API_KEYS"
_MIN_KEY = 16


def serve(
    folder: FolderArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"API keys, one a line; or the variable {KEYS_VARIABLE}, blanks between.")
    ] = None,
    roots: Annotated[
        list[Path] | None, typer.Option("--root", help="Folder whose files clients may name by path; repeatable.")
    ] = None,
    uploads: Annotated[
        Path | None, typer.Option(help="Folder for what clients send; default: CATALOG.uploads, beside it.")
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Size of the largest upload, in 10^6 bytes.")] = 2000,
    timeout: Annotated[
        float, typer.Option(min=0.01, max=86_400, help="Seconds from an upload to its answer, at most.")
    ] = 300.0,
    queue: Annotated[int, typer.Option(min=0, help="Uploads that may wait; more are told to come back later.")] = 32,
    engines: OwnEnginesOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read videos and share the cores; default: one a core.")
    ] = None,
    gpus: GpusOption = None,
    decoder: DecoderOption = None,
) -> None:
    """Answer uploads over HTTP, and take additions and removals, until it is stopped by SIGTERM or Ctrl-C.

    A page at the address shows the state and takes a file. Prints a JSON object with the address when it is ready.

    Example: vsc-engine serve catalogue/ --root videos/
    """
    from engine.catalog.catalog import Catalog
    from engine.errors import ConfigError
    from engine.run.plan import choose_workers
    from engine.serve.access import Access
    from engine.serve.roots import resolved_roots
    from engine.serve.server import bound_socket
    from engine.serve.server import serve as serve_until_stopped
    from engine.serve.service import Limits, Service

    access = Access(keys=_read_keys(api_key_file), roots=tuple(resolved_roots(roots or [])))
    with Catalog.open(folder, engines=engines, decoder=decoder) as catalog, bound_socket(host, port, access) as bound:
        manifest = catalog.described_by().engines.manifest
        if workers is None and gpus is None and manifest.backend == "openvino":
            workers = os.cpu_count()
        address, number = bound.getsockname()[:2]
        url = f"http://[{address}]:{number}" if ":" in address else f"http://{address}:{number}"
        if uploads is None and not isinstance(catalog.folder, Path):
            raise ConfigError(f"{folder} is not on this machine; name a folder for what clients send with --uploads")
        with Service.open(
            catalog,
            uploads=only_local(uploads) or Path(f"{catalog.folder.resolve()}.uploads"),
            workers=choose_workers(manifest, num_workers=workers, num_gpus=gpus),
            limits=Limits(max_upload_bytes=max_upload_mb * 1_000_000, timeout_s=timeout, queue=queue),
        ) as service:
            facts = {"catalog": str(folder), "url": url, "pid": os.getpid()}
            serve_until_stopped(service, access, bound, on_listening=lambda: print_json(facts))
    say("stopped")


def _read_keys(file: Path | None) -> tuple[str, ...]:
    from engine.errors import ConfigError

    if file is None:
        where, keys = KEYS_VARIABLE, os.environ.get(KEYS_VARIABLE, "").split()
    else:
        where, lines = str(file), file.read_text(encoding="utf-8").splitlines()
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"{where} holds no API key; put one in each line")
    short = [number for number, key in enumerate(keys, start=1) if len(key) < _MIN_KEY or not key.isascii()]
    if short:
        raise ConfigError(
            f"key {short[0]} of {where} has fewer than {_MIN_KEY} characters, or others than ASCII; make one with "
            "`openssl rand -hex 32`"
        )
    return tuple(keys)
