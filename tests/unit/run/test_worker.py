"""One worker process, spoken to as the supervisor does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import load_preset
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.records import Descriptors, Failure, Media
from engine.run.messages import Alive, Broken, Described, Done, Job, LogLine, Message, Probed, Ready
from engine.run.worker import WorkerSettings, serve, serve_probes
from engine.runtime.engines_directory import EnginesDirectory
from tests.videos import moving_frames, write_video


@contextmanager
def started(target: Callable[..., None], settings: Any) -> Iterator[tuple[Connection, BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, settings), daemon=True)
    process.start()
    theirs.close()
    try:
        yield connection, process
    finally:
        connection.close()
        process.join()


def answer(connection: Connection) -> Message:
    while isinstance(message := connection.recv(), LogLine | Alive):
        pass
    found: Message = message
    return found


@pytest.fixture
def media(tmp_path: Path) -> Media:
    write_video(tmp_path / "a.mp4", moving_frames(20), fps=10)
    return Media("a", tmp_path / "a.mp4")


def test_probes_give_what_headers_claim(media: Media, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with started(serve_probes, None) as (connection, process):
        assert answer(connection) == Ready()
        connection.send(Job("probe", media))
        found = answer(connection)
        assert isinstance(found, Done)
        assert isinstance(found.result, Probed)
        assert found.result.duration_s == pytest.approx(2, abs=0.1)
        for name in ("text", "missing"):
            connection.send(Job("probe", Media(name, tmp_path / f"{name}.mp4")))
            assert answer(connection) == Done(name, Probed(0.0))
    assert process.exitcode == 0


class TestDescribing:
    @pytest.fixture
    def settings(self, tiny_engines: Path) -> WorkerSettings:
        return WorkerSettings(
            engines=tiny_engines,
            preset=EnginesDirectory.open(tiny_engines).manifest.preset,
            raw_embeddings=False,
            role="reference",
            videos_at_once=1,
            num_threads=1,
        )

    def test_what_is_described_is_sent(self, media: Media, settings: WorkerSettings, tiny_engines: Path) -> None:
        with Engine.open(tiny_engines, num_threads=1) as engine:
            expected = engine.describe(media, role="reference")
        assert isinstance(expected, Descriptors)
        with started(serve, settings) as (connection, process):
            assert answer(connection) == Ready()
            for video_id in ("a", "b"):
                connection.send(Job("describe", replace(media, video_id=video_id)))
                done = answer(connection)
                assert isinstance(done, Done)
                assert isinstance(done.result, Described)
                assert done.video_id == done.result.descriptors.video_id == video_id
                np.testing.assert_array_equal(done.result.descriptors.descriptors, expected.descriptors)
                assert set(done.stages_s) >= {"decode", "ensemble"}
        assert process.exitcode == 0

    def test_failures_do_not_end_it(self, settings: WorkerSettings, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        with started(serve, settings) as (connection, _):
            assert answer(connection) == Ready()
            for name, words in (("missing", "No such file"), ("text", "cannot read it as a media file")):
                connection.send(Job("describe", Media(name, tmp_path / f"{name}.mp4")))
                done = answer(connection)
                assert isinstance(done, Done)
                assert isinstance(done.result, Failure)
                assert (done.result.video_id, done.result.stage) == (name, "open")
                assert words in done.result.reason

    def test_what_stops_all_workers_is_handed_over(self, settings: WorkerSettings) -> None:
        with started(serve, replace(settings, preset=load_preset("vsc22"))) as (connection, process):
            broken = answer(connection)
        assert isinstance(broken, Broken)
        assert isinstance(broken.error, ConfigError)
        assert "was built for the models of preset" in str(broken.error)
        assert process.exitcode == 0
