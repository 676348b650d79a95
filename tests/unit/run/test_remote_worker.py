from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Descriptors, Failure, Media
from engine.run.messages import Broken, Described, Done, Job, Probed, Ready
from engine.run.remote_worker import Answer, RemoteSettings, RemoteWorker
from engine.run.worker import WorkerSettings
from tests.videos import moving_frames, write_video


@pytest.fixture
def settings(tiny_engines: Path) -> RemoteSettings:
    with Engine.open(tiny_engines) as engine:
        worker = WorkerSettings(
            tiny_engines, engine.preset, raw_embeddings=False, role="query", videos_at_once=1, num_threads=1
        )
    return RemoteSettings.of(worker)


@pytest.fixture(autouse=True)
def _own_logging() -> object:
    """A worker takes over the logging of its process."""
    root, own = logging.getLogger(), logging.getLogger("engine")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before[0], before[1], before[2]


def refusal(answer: Answer) -> str:
    assert isinstance(answer.message, Broken)
    assert isinstance(answer.message.error, EngineError)
    assert "\n" not in str(answer.message.error)
    return str(answer.message.error)


def test_it_does_what_an_engine_does_here(settings: RemoteSettings, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", moving_frames(50))
    (tmp_path / "empty.mp4").touch()
    worker = RemoteWorker(settings.with_threads(2))
    started = worker.start()
    assert isinstance(started.message, Ready)
    assert any("OpenVINO" in line.text for line in started.log), "the backend is said"
    media = Media("v", tmp_path / "v.mp4")
    answer = worker.do(Job("describe", media)).message
    assert isinstance(answer, Done)
    assert isinstance(answer.result, Described)
    with Engine.open(settings.worker.engines) as engine:
        expected = engine.describe(media, role="query")
    assert isinstance(expected, Descriptors)
    np.testing.assert_array_equal(answer.result.descriptors.descriptors, expected.descriptors)
    assert answer.stages_s.keys() >= {"decode"}
    probed = worker.do(Job("probe", media)).message
    assert isinstance(probed, Done)
    assert probed.result == Probed(2.0)
    failed = worker.do(Job("describe", Media("empty", tmp_path / "empty.mp4"))).message
    assert isinstance(failed, Done)
    assert isinstance(failed.result, Failure)


def test_other_engines_than_where_the_command_runs(settings: RemoteSettings) -> None:
    text = refusal(RemoteWorker(replace(settings, manifest_sha256="0" * 64)).start())
    assert "are others than those where the command runs" in text
    assert "on node " in text


def test_no_engines_there(settings: RemoteSettings, tmp_path: Path) -> None:
    elsewhere = replace(settings, worker=replace(settings.worker, engines=tmp_path))
    assert f"there are no engines at {tmp_path}" in refusal(RemoteWorker(elsewhere).start())


def test_another_version_there(settings: RemoteSettings) -> None:
    text = refusal(RemoteWorker(replace(settings, version="0.0.9")).start())
    assert "0.0.9 where the command runs; install one version on all nodes" in text


def test_engines_that_are_damaged_there(settings: RemoteSettings, tmp_path: Path) -> None:
    manifest = settings.worker.engines / "manifest.json"
    (tmp_path / "manifest.json").write_bytes(manifest.read_bytes())
    elsewhere = replace(settings, worker=replace(settings.worker, engines=tmp_path))
    assert "is missing" in refusal(RemoteWorker(elsewhere).start())
