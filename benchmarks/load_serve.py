"""Many clients at one service on this machine: `python -m benchmarks.load_serve SET [--output benchmarks/results]`.

The references of SET become a catalogue, but for some, and the smallest of its queries are sent to `vsc-engine serve`
by several clients at once, in three rounds: alone; while the other references are added; with files among them that are
no videos. Every answer is compared with that of `Catalog.match` for the same file, which is asked first, one file at a
time; while videos are added, an answer may hold more, but what it says of the videos of before must be the same.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import typer

from benchmarks.data_sets import find_data_set
from benchmarks.harness import OutputOption, command_line, report
from engine.catalog.catalog import Catalog
from engine.catalog.documents import AnswerDocument
from engine.console import say
from engine.errors import EngineError
from engine.video.discovery import find_videos

BAD_EVERY = 5
_TIMEOUT_S = 600
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sent:
    """One upload: its file, the status and the body of the answer, and seconds from the first byte to the last."""

    file: str
    status: int
    body: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Round:
    """``num_answered``: right answers, ``num_refused``: bad files that were refused as such, ``problems``: the rest.

    ``load``: of the machine (1 minute) before it began. ``cpu_s``: of the service and its processes, an upload.
    """

    name: str
    num_sent: int
    num_answered: int
    num_refused: int
    problems: list[str]
    p50_s: float
    p95_s: float
    wall_s: float
    cpu_s: float
    load: float


def check(sent: Sequence[Sent], expected: Mapping[str, Mapping[str, Any]], *, may_hold_more: bool) -> list[str]:
    """One line for each answer that is not what it should be; ``expected``: documents by file, none for a bad file."""
    problems = []
    for item in sent:
        document = expected.get(item.file)
        if document is None:
            if item.status != http.HTTPStatus.UNPROCESSABLE_ENTITY or list(item.body) != ["error"]:
                problems.append(f"{item.file}: a bad file got status {item.status}")
        elif item.status != http.HTTPStatus.OK:
            problems.append(f"{item.file}: status {item.status}, {item.body}")
        elif not _agrees(item.body, document, may_hold_more=may_hold_more):
            problems.append(f"{item.file}: another answer than that of Catalog.match")
    return problems


def _agrees(body: Mapping[str, Any], document: Mapping[str, Any], *, may_hold_more: bool) -> bool:
    if not may_hold_more:
        return all(body[key] == value for key, value in document.items() if key != "path")
    found = {pair["ref_id"]: pair["score"] for pair in body["candidates"]}
    scores = [pair["score"] for pair in body["candidates"]]
    return body["num_rows"] == document["num_rows"] and all(
        # It may have made room for a better one.
        found.get(pair["ref_id"], pair["score"]) == pair["score"]
        and (pair["ref_id"] in found or pair["score"] <= min(scores, default=-np.inf))
        for pair in document["candidates"]
    )


def expected_answers(folder: Path, files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], float]:
    """What `Catalog.match` says of each file by path, as JSON, and CPU seconds a file, the engine warm."""
    documents = {}
    with Catalog.open(folder) as catalog:
        catalog.match(files[0])
        start_s = time.process_time()
        for file in files:
            answer = catalog.match(file)
            documents[str(file)] = json.loads(json.dumps(asdict(AnswerDocument.of(answer, path="", every=True))))
        cpu_s = (time.process_time() - start_s) / len(files)
    return documents, cpu_s


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Run a service; yields its address and process id. Raises ``EngineError`` if it does not end in good order."""
    command = [sys.executable, "-m", "engine", "serve", str(folder), "--port", "0", *options]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            line = process.stdout.readline()
            if not line:
                raise EngineError("the service did not start; start it by hand to see why")
            yield json.loads(line)["url"], process.pid
            process.send_signal(signal.SIGTERM)
            if process.wait(_TIMEOUT_S) != 0:
                raise EngineError(f"the service ended with status {process.returncode}")
        finally:
            process.kill()


def send(url: str, path: str, *, body: bytes | str) -> tuple[int, dict[str, Any]]:
    """Ask the service; status and JSON."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    kind = "application/json" if isinstance(body, str) else "application/octet-stream"
    try:
        connection.request("POST", path, body=body, headers={"Content-Type": kind})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def send_all(url: str, files: Sequence[Path], *, num_clients: int) -> list[Sent]:
    """Send each file, ``num_clients`` at once, each client the next one when it has its answer."""

    def upload(file: Path) -> Sent:
        start_s = time.perf_counter()
        status, body = send(url, f"/v1/match?all=true&id={file.stem}", body=file.read_bytes())
        return Sent(str(file), status, body, time.perf_counter() - start_s)

    with ThreadPoolExecutor(num_clients) as clients:
        return list(clients.map(upload, files))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and all that it started so far."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        total += sum(map(int, fields[11:15])) / _TICKS_PER_S
        for task in Path(f"/proc/{one}/task").iterdir():
            waiting += map(int, (task / "children").read_text(encoding="utf-8").split())
    return total


def lines(rounds: Sequence[Round], alone_cpu_s: float) -> list[str]:
    """The table of the report."""
    table = [
        f"{'round':<26}{'sent':>6}{'right':>7}{'refused':>9}{'wrong':>7}{'p50 s':>8}{'p95 s':>8}{'CPU s':>8}{'load':>7}"
    ]
    table += [
        f"{item.name:<26}{item.num_sent:>6}{item.num_answered:>7}{item.num_refused:>9}{len(item.problems):>7}"
        f"{item.p50_s:>8.2f}{item.p95_s:>8.2f}{item.cpu_s:>8.2f}{item.load:>7.1f}"
        for item in rounds
    ]
    return [*table, f"CPU s are an upload; Catalog.match in one process, one file at a time: {alone_cpu_s:.2f}"]


def main(
    data: Annotated[Path, typer.Argument(metavar="SET", help="Evaluation set.")],
    uploads: Annotated[int, typer.Option(min=1, help="Uploads of each round.")] = 200,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 8,
    num_queries: Annotated[int, typer.Option("--queries", min=1, help="Different files, the smallest.")] = 40,
    held_back: Annotated[int, typer.Option(min=1, help="References that are added in the second round.")] = 10,
    workers: Annotated[int | None, typer.Option(min=1, help="As of `vsc-engine serve`.")] = None,
    output: OutputOption = None,
) -> None:
    """Send many uploads at once to a service, and compare every answer with that of the library.

    Example: python -m benchmarks.load_serve val/
    """
    source = find_data_set(data)
    references = _paths(source.references)
    queries = sorted(_paths(source.queries), key=lambda path: path.stat().st_size)
    queries = queries[:num_queries]
    chosen = [queries[number % len(queries)] for number in range(uploads)]
    options = ["--root", str(source.references.resolve()), *([] if workers is None else ["--workers", str(workers)])]
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "catalogue"
        with Catalog.create(folder) as catalog:
            catalog.add(references[held_back:])
        before, alone_cpu_s = expected_answers(folder, queries)
        say(f"Catalog.match: {alone_cpu_s:.2f} CPU seconds a file")
        mixed = _with_bad_files(chosen, Path(temporary))

        with serving(folder, *options) as (url, pid):

            def run(name: str, files: Sequence[Path], expected: Mapping[str, Any], *, may_hold_more: bool) -> None:
                load, cpu_s, start_s = os.getloadavg()[0], cpu_seconds(pid), time.perf_counter()
                sent = send_all(url, files, num_clients=clients)
                wall_s, cpu_s = time.perf_counter() - start_s, cpu_seconds(pid) - cpu_s
                problems = check(sent, expected, may_hold_more=may_hold_more)
                statuses = Counter(item.status for item in sent)
                seconds = [item.seconds for item in sent if item.status == http.HTTPStatus.OK]
                p50_s, p95_s = (float(np.quantile(seconds, share)) for share in (0.5, 0.95))
                refused = statuses[http.HTTPStatus.UNPROCESSABLE_ENTITY]
                right = statuses[http.HTTPStatus.OK] - len(problems)
                rounds.append(
                    Round(name, len(files), right, refused, problems, p50_s, p95_s, wall_s, cpu_s / len(files), load)
                )
                say(f"{rounds[-1]}")

            run("uploads alone", chosen, before, may_hold_more=False)
            added: list[tuple[int, dict[str, Any]]] = []
            adder = threading.Thread(
                target=lambda: added.extend(
                    send(url, "/v1/videos", body=json.dumps({"path": str(path.resolve())}))
                    for path in references[:held_back]
                )
            )
            adder.start()
            run("while videos are added", chosen, before, may_hold_more=True)
            adder.join()
            if any(status != http.HTTPStatus.CREATED for status, _ in added):
                raise EngineError(f"videos could not be added: {added}")
            after, _ = expected_answers(folder, queries)
            run(f"every {BAD_EVERY}th file is bad", mixed, after, may_hold_more=False)
        problems = Catalog.open(folder).verify().problems
        if problems:
            raise EngineError(f"the catalogue is damaged: {problems[0]}")
    report(
        "load_serve",
        lines=[
            f"{source.name}: {clients} clients, {uploads} uploads a round, of the {len(queries)} smallest queries",
            *lines(rounds, alone_cpu_s),
        ],
        figures={
            "data": source.name,
            "clients": clients,
            "alone_cpu_s": alone_cpu_s,
            "rounds": [asdict(item) for item in rounds],
        },
        output=output,
    )
    if any(item.problems for item in rounds):
        raise EngineError("some answers are wrong; see the problems above")


def _paths(folder: Path) -> list[Path]:
    return [Path(str(item.path)) for item in find_videos([folder])]


def _with_bad_files(files: Sequence[Path], folder: Path) -> list[Path]:
    """Every fifth file replaced: by text, by the first bytes of a video, by nothing."""
    contents = {"text": b"no video\n" * 1000, "cut": files[0].read_bytes()[:2000], "empty": b""}
    bad = []
    for name, content in contents.items():
        bad.append(folder / f"{name}.mp4")
        bad[-1].write_bytes(content)
    return [bad[number % len(bad)] if number % BAD_EVERY == 0 else file for number, file in enumerate(files)]


app = command_line(main)

if __name__ == "__main__":
    app()
