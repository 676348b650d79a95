"""Many videos in one process: order, the border around each video, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from engine.config import Preset, load_preset
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.projection import l2_normalize
from engine.records import Descriptors, Failure, Media, Role
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.pyav import PyAvFrameSource
from tests.videos import moving_frames, write_video

pytestmark = pytest.mark.torch


@pytest.fixture
def media(tmp_path: Path) -> list[Media]:
    write_video(tmp_path / "a.mp4", moving_frames(20), fps=10)
    (tmp_path / "b.mp4").write_text("no video")
    write_video(tmp_path / "c.mp4", moving_frames(30, seed=1), fps=10)
    return [Media(name, tmp_path / f"{name}.mp4") for name in ("c", "b", "a")]


def preset_of(engines: Path) -> Preset:
    return EnginesDirectory.open(engines).manifest.preset


def test_a_bad_video_costs_no_other_its_result(lite_engines: Path, media: list[Media]) -> None:
    with Engine.open(lite_engines, num_threads=2) as engine:
        found = list(engine.describe_media(media, role="reference"))
        assert [failure.video_id for failure in engine.failures] == ["b"]
        assert set(engine.times.as_dict()) >= {"decode", "ensemble"}
    assert [item.video_id for item in found] == ["c", "b", "a"]
    assert isinstance(found[1], Failure)
    assert found[1].stage == "open"
    assert [len(item) for item in found if isinstance(item, Descriptors)] == [3, 2]


def test_an_error_that_nobody_foresaw_is_a_failure_of_its_video(
    lite_engines: Path, media: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine.open(lite_engines, num_threads=1) as engine:
        opened = engine.decoder.open

        def open_or_break(item: Media) -> object:
            if item.video_id == "c":
                raise ZeroDivisionError("in a library")
            return opened(item)

        monkeypatch.setattr(engine.decoder, "open", open_or_break)
        found = list(engine.describe_media(media[::2], role="reference"))
    assert isinstance(found[0], Failure)
    assert (found[0].stage, found[0].reason) == ("open", "ZeroDivisionError: in a library")
    assert isinstance(found[1], Descriptors)


@pytest.mark.parametrize(("resize", "min_cosine"), [("rgb", 1), ("planes", 0.998)])
def test_frames_are_described_as_the_file_that_they_come_from(
    tiny_engines: Path, tmp_path: Path, resize: str, min_cosine: float
) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(60), fps=10)
    with closing(PyAvFrameSource(Media("a", tmp_path / "a.mp4"))) as source:
        frames, times = np.stack(list(source.pictures())), source.timestamps[:, 0].astype(float)
    for role in get_args(Role):
        preset = EnginesDirectory.open(tiny_engines).manifest.preset
        decoding = preset.decoding.model_copy(update={"resize": resize})
        preset = preset.model_copy(update={"decoding": decoding})
        with Engine.open(tiny_engines, preset=preset, num_threads=1) as engine:
            expected = engine.describe_file(tmp_path / "a.mp4", role=role)
            found = engine.describe_frames(frames, times, role=role, video_id="a")
        assert found.video_id == expected.video_id
        np.testing.assert_array_equal(found.timestamps, expected.timestamps)
        one, other = (l2_normalize(rows.descriptors) for rows in (found, expected))
        assert np.vecdot(one, other).min() >= min_cosine - 1e-6
        assert np.array_equal(found.descriptors, expected.descriptors) == (resize == "rgb")


def test_another_role_is_refused_before_any_work(tiny_engines: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(10), fps=10)
    with Engine.open(tiny_engines, num_threads=1) as engine:
        role: Any = "upload"
        calls: list[Callable[[], object]] = [
            lambda: list(engine.extract(tmp_path / "gone.mp4", role=role)),
            lambda: list(engine.describe_media([Media("a", tmp_path / "a.mp4")], role=role)),
            lambda: engine.describe(Media("a", tmp_path / "a.mp4"), role=role),
            lambda: engine.describe_file(tmp_path / "a.mp4", role=role),
            lambda: engine.describe_frames(np.zeros((1, 8, 8, 3), np.uint8), [0], role=role),
            lambda: engine.identity(role=role),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match=r"the role 'upload'; expected 'query' .* or 'reference'") as error:
                call()
            assert "\n" not in str(error.value)
        assert engine.failures == []


def test_one_path_is_enough(tiny_engines: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(10), fps=10)
    with Engine.open(tiny_engines, num_threads=1) as engine:
        for path in (tmp_path / "a.mp4", str(tmp_path / "a.mp4")):
            assert [item.video_id for item in engine.extract(path, role="query")] == ["a"]


def test_the_identity_holds_what_decides_descriptors_and_nothing_else(lite_engines: Path) -> None:
    preset = preset_of(lite_engines)
    query = Engine.open(lite_engines).identity(role="query")
    assert query["settings"]["sampling"] == {"fps": 1.0}
    assert {"scenes", "gate", "near_duplicates"} <= query["settings"].keys()
    assert not {"search", "localization", "score_norm", "pca", "false_matches"} & query["settings"].keys()
    search = preset.search.model_copy(update={"retrieve_per_query": 7})
    assert (
        Engine.open(lite_engines, preset=preset.model_copy(update={"search": search})).identity(role="query") == query
    )
    assert Engine.open(lite_engines, preset=preset.with_max_pixels(1000)).identity(role="query") == query
    mapped = preset.decoding.model_copy(update={"hdr": "tone_map"})
    as_is = preset.decoding.model_copy(update={"hdr": "as_is"})
    identities = [
        Engine.open(lite_engines, preset=preset.model_copy(update={"decoding": decoding})).identity(role="query")
        for decoding in (mapped, as_is)
    ]
    assert identities[0] != identities[1]
    assert Engine.open(lite_engines, fps=2.0).identity(role="query") != query
    keyframes = preset.with_sampled_frames("keyframes")
    assert Engine.open(lite_engines, preset=keyframes).identity(role="query")["settings"]["sampling"] == {
        "fps": 1.0,
        "frames": "keyframes",
        "max_gap_s": 2.1,
    }
    reference = Engine.open(lite_engines).identity(role="reference")
    without = preset.model_copy(update={"scenes": preset.scenes.model_copy(update={"enabled": False})})
    assert Engine.open(lite_engines, preset=without).identity(role="reference") == reference
    assert Engine.open(lite_engines, preset=without).identity(role="query") != query


def test_what_is_refused_before_any_work(lite_engines: Path, media: list[Media]) -> None:
    with pytest.raises(ConfigError, match="built for the models of preset"):
        Engine.open(lite_engines, preset=load_preset("vsc22"))
    with pytest.raises(ConfigError, match="expected fps > 0, got 0"):
        Engine.open(lite_engines, fps=0)
    with pytest.raises(ConfigError, match="at least one thread, got 0"):
        Engine.open(lite_engines, num_threads=0)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        Engine.open(lite_engines).describe(media[0], role="query")
