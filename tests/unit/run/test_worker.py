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

import pytest

from engine.config import load_preset
from engine.errors import ConfigError
from engine.records import Failure, Media
from engine.run.messages import Broken, Described, Done, Job, LogLine, Message, Probed, Ready, Saved, SaveRequest
from engine.run.worker import WorkerSettings, serve, serve_probes
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.shards import Fingerprint, read_shard
from tests.videos import moving_frames, write_video


@contextmanager
def started(target: Callable[..., None], settings: Any) -> Iterator[tuple[Connection, BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, settings, 3), daemon=True)
    process.start()
    theirs.close()
    try:
        yield connection, process
    finally:
        connection.close()
        process.join()


def answer(connection: Connection) -> Message:
    while isinstance(message := connection.recv(), LogLine):
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


@pytest.mark.torch
class TestDescribing:
    @pytest.fixture
    def settings(self, lite_engines: Path, tmp_path: Path) -> WorkerSettings:
        return WorkerSettings(
            engines=lite_engines,
            preset=EnginesDirectory.open(lite_engines).manifest.preset,
            fps=1.0,
            raw_embeddings=False,
            role="reference",
            folder=tmp_path / "store",
            videos_at_once=1,
            num_threads=1,
        )

    def test_what_is_described_is_saved_when_asked_and_when_the_pipe_is_closed(
        self, media: Media, settings: WorkerSettings
    ) -> None:
        with started(serve, settings) as (connection, process):
            assert answer(connection) == Ready()
            for video_id in ("a", "b"):
                connection.send(Job("describe", replace(media, video_id=video_id)))
                done = answer(connection)
                assert isinstance(done, Done)
                assert (done.video_id, done.result) == (video_id, Described(()))
                assert set(done.stages_s) >= {"decode", "ensemble"}
                if video_id == "a":
                    assert not settings.folder.exists()
                    connection.send(SaveRequest())
                    assert answer(connection) == Saved()
        assert process.exitcode == 0
        for count, video_id in enumerate(("a", "b")):
            (stored,) = read_shard(settings.folder / f"shard-00003-{count:05d}.parquet")
            assert (stored.descriptors.video_id, len(stored.descriptors)) == (video_id, 2)
            assert stored.fingerprint == Fingerprint.of(media.path)

    def test_a_video_alone_is_saved_at_once(self, media: Media, settings: WorkerSettings) -> None:
        with started(serve, settings) as (connection, _):
            assert answer(connection) == Ready()
            connection.send(Job("describe", media, is_alone=True))
            assert isinstance(answer(connection), Done)
            assert answer(connection) == Saved()
            assert len(list(settings.folder.iterdir())) == 1

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

    def test_what_stops_all_workers_is_handed_over(
        self, media: Media, settings: WorkerSettings, tmp_path: Path
    ) -> None:
        with started(serve, replace(settings, preset=load_preset("vsc22"))) as (connection, process):
            broken = answer(connection)
        assert isinstance(broken, Broken)
        assert isinstance(broken.error, ConfigError)
        assert "was built for the models of preset" in str(broken.error)
        assert process.exitcode == 0
        (tmp_path / "file").touch()
        with started(serve, replace(settings, folder=tmp_path / "file")) as (connection, _):
            assert answer(connection) == Ready()
            connection.send(Job("describe", media, is_alone=True))
            assert isinstance(answer(connection), Done)
            broken = answer(connection)
        assert isinstance(broken, Broken)
        assert isinstance(broken.error, OSError)
