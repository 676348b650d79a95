"""What repeats the picture before it has its row, and nothing else has."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import NearDuplicates, Scenes, load_preset
from engine.describe.describer import Describer
from engine.describe.repeats import Repeats
from engine.records import Frames, Media, Role
from engine.runtime.batching import SharedRunner
from engine.runtime.device_array import DeviceArray
from engine.runtime.runner import Tensors
from engine.timing import StageClock, StageTimes
from engine.video.pyav import PyAvFrameSource
from engine.video.source import FrameChunk, InputSpec
from tests.runners import NumPyRunner
from tests.videos import moving_frames, write_video


def chunk(*values: int, view: int = 0, **others: int) -> FrameChunk:
    """A chunk of pictures of one color; ``others``: the color of all pictures of another input."""
    inputs = {"a": np.repeat(np.uint8(values), 12).reshape(-1, 2, 2, 3)}
    inputs |= {name: np.full((len(values), 2, 2, 3), value, np.uint8) for name, value in others.items()}
    return FrameChunk(np.zeros((len(values), 2), np.float32), inputs, np.zeros(len(values), bool), view)


def left(inputs: dict[str, Frames]) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in inputs["a"]]


def test_a_picture_that_repeats_the_one_before_is_left_out() -> None:
    repeats = Repeats()
    assert left(repeats.new_inputs(chunk(1, 1, 2, 2, 1))) == [1, 2, 1]
    assert left(repeats.new_inputs(chunk(1, 1))) == []
    assert left(repeats.new_inputs(chunk(1, 3, 3))) == [3]
    assert repeats.places.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]


def test_each_view_is_compared_with_itself() -> None:
    repeats = Repeats()
    given = [chunk(1, 1), chunk(5, 1, view=1), chunk(1, 2), chunk(1, 1, view=1)]
    assert [left(repeats.new_inputs(one)) for one in given] == [[1], [5, 1], [2], []]
    assert repeats.places.tolist() == [0, 0, 1, 2, 0, 3, 2, 2]


def test_all_inputs_must_be_equal() -> None:
    repeats = Repeats()
    assert [left(repeats.new_inputs(chunk(1, b=b))) for b in (7, 8, 8)] == [[1], [1], []]


def test_no_pixels_are_kept() -> None:
    """A long film has a view for each shot."""
    repeats = Repeats()
    given = chunk(1, 2)
    pixels = weakref.ref(given.inputs["a"].base)
    repeats.new_inputs(given)
    del given
    assert pixels() is None
    assert left(repeats.new_inputs(chunk(2, 3))) == [3]


def test_pictures_on_a_gpu_are_all_new() -> None:
    array: Any = DeviceArray(4096, (3, 2, 2, 3), np.dtype(np.uint8), None, None)
    repeats = Repeats()
    given = FrameChunk(np.zeros((3, 2), np.float32), {"a": array}, np.zeros(3, bool))
    assert repeats.new_inputs(given) == {"a": array}
    assert repeats.places.tolist() == [0, 1, 2]


@pytest.mark.parametrize("role", ["query", "reference"])
def test_a_slide_show_is_described_slide_by_slide_with_the_same_rows(tmp_path: Path, role: Role) -> None:
    fps, seconds = 4, (5, 1, 4)
    slides = moving_frames(3, height=112, width=128, seed=1)
    shown = np.repeat(slides, [fps * length for length in seconds], axis=0)
    write_video(tmp_path / "slides.mkv", shown, fps=fps, codec="ffv1")
    num_run = 0

    def ensemble(tensors: Tensors) -> dict[str, NDArray[Any]]:
        nonlocal num_run
        num_run += len(tensors["frames_224"])
        return {"embedding": embed(tensors["frames_224"])}

    changes = {"near_duplicates": NearDuplicates(max_cosine=2.0), "scenes": Scenes(enabled=False)}
    preset = load_preset("lite").model_copy(update=changes)
    source = PyAvFrameSource(Media("slides", tmp_path / "slides.mkv"))
    describer = Describer(preset, SharedRunner(NumPyRunner(ensemble)), gate=None, num_dims=27, use_pca=False)
    found = describer.describe(source, video_id="slides", role=role, clock=StageClock(StageTimes()))
    pictures = np.concatenate([one.inputs["x"] for one in source.model_inputs([InputSpec("x", 224)])])
    np.testing.assert_array_equal(found.descriptors, embed(pictures))
    assert found.timestamps[:, 0].tolist() == list(range(10))
    assert num_run == len(seconds)


def embed(frames: Any) -> NDArray[np.float32]:
    return np.asarray(frames)[:, 30::80, 30::80].reshape(len(frames), -1).astype(np.float32)
