"""What an extraction makes of results, whoever describes: an executor that computes nothing stands for the workers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, StoreError
from engine.records import Failure, Media, Role
from engine.run import extraction
from engine.run.extraction import ExtractionOptions, extract_to_npz, extract_to_store
from engine.run.messages import Described, Job, Probed, Result
from engine.run.plan import Workers
from engine.store.store import read_descriptors, read_manifest
from tests.workers import descriptors

ONE = Workers(count=1, videos_at_once=1, num_threads=1)


@dataclass
class Decoder:
    leaves_to_pyav: bool = False


@dataclass
class Engine:
    """What an extraction asks of an engine."""

    decoder: Decoder = field(default_factory=Decoder)

    def identity(self, *, role: Role) -> dict[str, Any]:
        return {"role": role}


@dataclass
class Script:
    """An executor: lengths by id, ids that fail, ids whose content is bad, an id after whose result everything ends."""

    lengths_s: dict[str, float] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    bad: frozenset[str] = frozenset()
    last: str | None = None
    described: list[str] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=lambda: {"ensemble": 1.0})

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        for job in jobs:
            yield job, self._result(job)
            if job.action == "describe" and job.media.video_id == self.last:
                raise KeyboardInterrupt

    def _result(self, job: Job) -> Result:
        video_id = job.media.video_id
        if job.action == "probe":
            return Probed(self.lengths_s.get(video_id, 0.0))
        self.described.append(video_id)
        if video_id in self.failing | self.bad:
            is_bad = video_id in self.bad
            return Failure(video_id, job.media.path, "decode", "no frame", is_of_content=is_bad)
        return Described(descriptors(video_id), "codec odd" if video_id == "left" else None)


@pytest.fixture
def media(tmp_path: Path) -> list[Media]:
    found = []
    for size_bytes, name in enumerate(("a", "b", "c", "left")):
        (tmp_path / f"{name}.mp4").write_bytes(b"x" * size_bytes)
        found.append(Media(name, tmp_path / f"{name}.mp4"))
    return found


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Script]:
    def put(script: Script) -> Script:
        monkeypatch.setattr(extraction, "_open_workers", lambda *_, **__: script)
        return script

    return put


def extract(media: list[Media], output: Path, **options: Any) -> extraction.ExtractionSummary:
    engine: Any = Engine(Decoder(leaves_to_pyav=True))
    return extract_to_store(engine, media, role="query", output=output, workers=ONE, **options)


def test_the_longest_comes_first_then_the_largest_file(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    script = use(Script(lengths_s={"b": 9.0, "a": 2.0}))
    done = []
    summary = extract(media, tmp_path / "out", on_done=lambda: done.append(1))
    assert script.described == ["b", "a", "left", "c"]
    assert (summary.num_described, summary.num_kept, summary.failures) == (4, 0, ())
    assert summary.refusals == {"codec odd": 1}
    assert summary.stages_s == {"ensemble": 1.0}
    assert len(done) == 4
    found = read_descriptors(tmp_path / "out")
    assert [item.video_id for item in found] == ["a", "b", "c", "left"]
    for item in found:
        np.testing.assert_array_equal(item.descriptors, descriptors(item.video_id).descriptors)


def test_failures_whose_reason_is_not_the_content_are_recorded_in_order_and_tried_again(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script(lengths_s={"c": 5.0}, failing=frozenset("ca")))
    summary = extract(media, tmp_path / "out")
    assert [failure.video_id for failure in summary.failures] == ["a", "c"]
    assert read_manifest(tmp_path / "out").failures == summary.failures
    script = use(Script())
    summary = extract(media, tmp_path / "out")
    assert set(script.described) == {"a", "c"}
    assert (summary.num_described, summary.num_kept) == (2, 2)
    assert read_manifest(tmp_path / "out").failures == ()


def test_what_was_described_before_the_end_is_kept(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script(lengths_s={"b": 9.0, "c": 8.0}, last="c"))
    with pytest.raises(KeyboardInterrupt):
        extract(media, tmp_path / "out")
    script = use(Script())
    assert extract(media, tmp_path / "out").num_kept == 2
    assert set(script.described) == {"a", "left"}


def test_changed_files_are_described_again_and_nothing_else_is_dropped(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script())
    extract(media[1:3], tmp_path / "out")
    os.utime(media[1].path, ns=(1, 1))
    script = use(Script())
    done: list[int] = []
    summary = extract(media[:2], tmp_path / "out", on_done=lambda: done.append(1))
    assert sorted(script.described) == ["a", "b"]
    assert (summary.num_described, summary.num_kept, summary.num_dropped) == (2, 0, 0)
    assert [item.video_id for item in read_descriptors(tmp_path / "out")] == ["a", "b", "c"]
    summary = extract(media[:3], tmp_path / "out", on_done=lambda: done.append(1))
    assert (summary.num_kept, len(done)) == (3, 5), "those that are there count for the bar"


def test_videos_that_are_not_among_the_inputs_are_dropped_if_asked_for(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script())
    extract(media, tmp_path / "out")
    summary = extract(media[:3], tmp_path / "out", options=ExtractionOptions(prune=True))
    assert (summary.num_described, summary.num_kept, summary.num_dropped) == (0, 3, 1)
    assert [item.video_id for item in read_descriptors(tmp_path / "out")] == ["a", "b", "c"]


def test_a_file_that_cannot_be_looked_at_keeps_its_rows(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    """As while a network folder is away."""
    use(Script())
    extract(media, tmp_path / "out")
    media[0].path.rename(tmp_path / "away")
    use(Script(failing=frozenset("a")))
    summary = extract(media, tmp_path / "out")
    assert [failure.video_id for failure in summary.failures] == ["a"]
    assert summary.num_kept == 3
    assert len(read_descriptors(tmp_path / "out")) == 4


class TestKnownBad:
    @pytest.fixture
    def out(self, media: list[Media], tmp_path: Path, use: Callable[[Script], Script]) -> Path:
        """A store for which the content of b is bad."""
        use(Script(bad=frozenset("b")))
        summary = extract(media, tmp_path / "out")
        assert ([item.video_id for item in summary.failures], summary.known_failures) == (["b"], ())
        return tmp_path / "out"

    def test_it_is_not_tried_again_but_listed(
        self, media: list[Media], out: Path, use: Callable[[Script], Script]
    ) -> None:
        script = use(Script())
        for _ in range(2):
            summary = extract(media, out)
            assert script.described == []
            assert (summary.num_described, summary.num_kept, summary.failures) == (0, 3, ())
            assert [(item.video_id, item.reason) for item in summary.known_failures] == [("b", "no frame")]
            assert read_manifest(out).failures == summary.known_failures

    def test_content_is_known_under_another_name_and_time(
        self, media: list[Media], out: Path, use: Callable[[Script], Script]
    ) -> None:
        script = use(Script())
        copy = media[1].path.with_name("copy.mp4")
        copy.write_bytes(media[1].path.read_bytes())
        os.utime(media[1].path, ns=(1, 1))
        summary = extract([*media, Media("copy", copy)], out)
        assert script.described == []
        assert {item.path for item in summary.known_failures} == {media[1].path, copy}

    def test_other_content_of_the_same_size_is_tried(
        self, media: list[Media], out: Path, use: Callable[[Script], Script]
    ) -> None:
        media[1].path.write_bytes(b"y")
        os.utime(media[1].path, ns=(1, 1))
        script = use(Script())
        assert extract(media, out).num_described == 1
        assert script.described == ["b"]
        assert len(read_descriptors(out)) == 4
        assert read_manifest(out).known_bad == ()

    def test_it_is_tried_again_if_asked_for_and_by_other_versions(
        self, media: list[Media], out: Path, use: Callable[[Script], Script]
    ) -> None:
        script = use(Script(bad=frozenset("b")))
        summary = extract(media, out, options=ExtractionOptions(retry_failed=True))
        assert ([item.video_id for item in summary.failures], script.described) == (["b"], ["b"])
        manifest = (out / "manifest.json").read_text()
        (out / "manifest.json").write_text(re.sub('"reader": ".*"', '"reader": "vsc-engine 0.0.1, PyAV 1.0"', manifest))
        script = use(Script())
        assert extract(media, out).num_described == 1
        assert script.described == ["b"]


def test_limits_grow_with_the_length_and_headers_are_not_believed() -> None:
    options = ExtractionOptions(video_timeout_s=100)
    mib = 2**20
    assert options.limit_s(30, size_bytes=mib) == 100
    assert options.limit_s(600, size_bytes=10 * mib) == 1000
    assert options.limit_s(900_000, size_bytes=67_000) == pytest.approx(100 * 67 / 60)
    assert options.limit_s(0, size_bytes=60 * mib) == pytest.approx(100 * 60 * mib / 100_000 / 60)
    assert options.limit_s(0, size_bytes=0) == 100


def test_a_file_that_vanished_fails_alone(media: list[Media], tmp_path: Path, use: Callable[[Script], Script]) -> None:
    media[0].path.unlink()
    use(Script(failing=frozenset("a")))
    summary = extract(media, tmp_path / "out")
    assert [failure.video_id for failure in summary.failures] == ["a"]
    assert summary.num_described == 3


def test_a_challenge_file_of_nothing_is_not_written(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script(failing=frozenset(item.video_id for item in media)))
    engine: Any = Engine()
    with pytest.raises(ConfigError, match="none of 4 videos could be described"):
        extract_to_npz(engine, media, role="query", output=tmp_path / "out.npz", workers=ONE)
    assert not list(tmp_path.glob("*.npz*"))


def test_a_folder_in_place_of_a_challenge_file_is_refused_before_anything_is_described(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    script = use(Script())
    (tmp_path / "out.npz").mkdir()
    engine: Any = Engine()
    with pytest.raises(ConfigError, match=r"out\.npz is a folder"):
        extract_to_npz(engine, media, role="query", output=tmp_path / "out.npz", workers=ONE)
    assert not script.described


def test_an_interrupted_challenge_file_is_gone_on_with(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script(lengths_s={"b": 9.0, "c": 8.0}, last="c"))
    engine: Any = Engine()
    output = tmp_path / "out.npz"
    with pytest.raises(KeyboardInterrupt):
        extract_to_npz(engine, media, role="query", output=output, workers=ONE)
    assert not output.exists()
    script = use(Script())
    extract_to_npz(engine, media[:3], role="query", output=output, workers=ONE)
    assert script.described == ["a"]
    assert [item.video_id for item in read_descriptors(output)] == ["a", "b", "c"]
    assert not list(tmp_path.glob(".out*"))


def test_what_other_engines_left_of_a_challenge_file_is_not_used(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script(lengths_s={"b": 9.0}, last="b"))
    engine: Any = Engine()
    output = tmp_path / "out.npz"
    with pytest.raises(KeyboardInterrupt):
        extract_to_npz(engine, media, role="query", output=output, workers=ONE)
    script = use(Script())
    extract_to_npz(engine, media, role="reference", output=output, workers=ONE)
    assert set(script.described) == {"a", "b", "c", "left"}
    assert not list(tmp_path.glob(".out*"))


def test_two_writers_of_a_challenge_file_exclude_each_other(
    media: list[Media], tmp_path: Path, use: Callable[[Script], Script]
) -> None:
    use(Script())
    engine: Any = Engine()
    output = tmp_path / "out.npz"
    refusals: list[str] = []

    def second() -> None:
        if not refusals:
            with pytest.raises(StoreError) as refused:
                extract_to_npz(engine, media, role="query", output=output, workers=ONE)
            refusals.append(str(refused.value))

    extract_to_npz(engine, media, role="query", output=output, workers=ONE, on_done=second)
    assert refusals == [f"another process is writing {output}; wait for it or choose another file"]
    assert len(read_descriptors(output)) == 4
