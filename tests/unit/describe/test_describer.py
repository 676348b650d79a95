"""What one video goes through, on real small videos and with a runner whose output can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import ClipGate, EnsembleGate, NearDuplicates, Scenes, load_preset
from engine.describe.describer import Describer, GateRunners
from engine.gate_placeholder import placeholder
from engine.records import Descriptors, Media, Role
from engine.runtime.batching import SharedRunner
from engine.runtime.runner import Tensors
from engine.timing import StageClock, StageTimes
from engine.video.pyav import PyAvFrameSource
from engine.video.sampling import slot_timestamps
from engine.video.source import InputSpec
from tests.gate_presets import ensemble_gate
from tests.runners import NumPyRunner
from tests.videos import moving_frames, write_video

FPS = 10


def embed(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colors of a 7 x 7 grid around their mean, scaled to length 1."""
    grid = frames[:, 16::32, 16::32].reshape(len(frames), -1).astype(np.float32)
    grid -= grid.mean(axis=1, keepdims=True)
    return grid / (np.linalg.norm(grid, axis=1, keepdims=True) + 1e-6)


def ensemble(tensors: Tensors) -> dict[str, NDArray[Any]]:
    embedding = embed(tensors["frames_224"])
    return {"embedding": embedding, "descriptor": embedding[:, :5] * 2, "edit_features": embedding[:, :7] + 1}


def describer(
    *,
    edit_score: float | None = None,
    gate: EnsembleGate | None = None,
    calls: list[Tensors] | None = None,
    use_pca: bool = False,
    max_cosine: float = 2.0,
    scope: Literal["video", "shots"] = "video",
) -> Describer:
    """With ``edit_score`` there is a gate that gives it to each video, by default the reference's."""
    changes = {"near_duplicates": NearDuplicates(max_cosine=max_cosine), "scenes": Scenes(scope=scope)}
    preset = load_preset("lite").model_copy(update=changes)
    shared = SharedRunner(NumPyRunner(ensemble))
    runners = None
    if edit_score is not None:
        score = NumPyRunner(lambda tensors: _score(tensors, edit_score, calls))
        config = gate or load_preset("vsc22").gate
        assert isinstance(config, ClipGate | EnsembleGate)
        clip = NumPyRunner(lambda tensors: {"features": embed(tensors["frames_224"])})
        features = shared if gate is not None else SharedRunner(clip)
        runners = GateRunners(config, features, score)
    return Describer(
        preset=preset,
        ensemble=shared,
        gate=runners,
        num_dims=5 if use_pca else 147,
        use_pca=use_pca,
    )


def _score(tensors: Tensors, edit_score: float, calls: list[Tensors] | None) -> dict[str, NDArray[Any]]:
    if calls is not None:
        calls.append(tensors)
    return {"score": np.array([edit_score], np.float32)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Media:
    path = tmp_path_factory.mktemp("videos") / "plain.mp4"
    write_video(path, moving_frames(6 * FPS, height=112, width=128, seed=1), fps=FPS)
    return Media("plain", path)


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> Media:
    path = tmp_path_factory.mktemp("videos") / "side_by_side.mp4"
    left, right = (moving_frames(6 * FPS, height=112, width=128, seed=seed) for seed in (2, 3))
    border = np.zeros((112, 8, 3), np.uint8)
    write_video(path, [np.hstack([one, border, two]) for one, two in zip(left, right, strict=True)], fps=FPS)
    return Media("side_by_side", path)


def describe(media: Media, role: Role, **options: Any) -> Descriptors:
    fps = options.pop("fps", 1.0)
    source = PyAvFrameSource(media, fps=fps)
    try:
        clock = StageClock(StageTimes())
        return describer(**options).describe(source, video_id=media.video_id, role=role, clock=clock)
    finally:
        source.close()


def expected_rows(media: Media) -> NDArray[np.float32]:
    source = PyAvFrameSource(media)
    chunks = [chunk.inputs["x"] for chunk in source.model_inputs([InputSpec("x", 224)])]
    source.close()
    return embed(np.concatenate(chunks))


def test_a_reference_is_described_frame_by_frame(plain: Media) -> None:
    item = describe(plain, "reference", edit_score=0.0)
    np.testing.assert_array_equal(item.descriptors, expected_rows(plain))
    np.testing.assert_array_equal(item.timestamps, [[slot, slot + 1] for slot in range(6)])
    assert (item.edit_score, item.gate) == (None, "passed")


def test_timestamps_follow_fps(plain: Media) -> None:
    item = describe(plain, "reference", fps=2.0)
    np.testing.assert_allclose(item.timestamps, [[slot / 2, (slot + 1) / 2] for slot in range(12)])


def test_with_a_pca_the_descriptor_output_is_kept(plain: Media) -> None:
    item = describe(plain, "reference", use_pca=True)
    np.testing.assert_array_equal(item.descriptors, expected_rows(plain)[:, :5] * 2)


def test_the_gate_stops_a_query_and_no_reference(plain: Media) -> None:
    stopped = describe(plain, "query", edit_score=0.0005)
    assert stopped.is_stopped
    assert stopped.edit_score == pytest.approx(0.0005)
    np.testing.assert_array_equal(
        stopped.descriptors, placeholder("plain", slot_timestamps(1), edit_score=0, num_dims=147).descriptors
    )
    np.testing.assert_array_equal(stopped.timestamps, [[0, 1]])
    passed = describe(plain, "query", edit_score=0.001)
    assert not passed.is_stopped
    assert len(passed) == 6


def test_scenes_of_a_query_are_described_one_after_the_other(side_by_side: Media) -> None:
    item = describe(side_by_side, "query")
    assert len(item) == 12
    np.testing.assert_array_equal(item.timestamps[:6], item.timestamps[6:])
    whole = describe(side_by_side, "reference")
    assert len(whole) == 6


def test_scenes_of_shots_come_after_the_whole_frames(side_by_side: Media) -> None:
    of_video, of_shots = (describe(side_by_side, "query", scope=scope) for scope in ("video", "shots"))
    whole = describe(side_by_side, "reference")
    np.testing.assert_array_equal(of_shots.descriptors, np.vstack([whole.descriptors, of_video.descriptors]))
    np.testing.assert_array_equal(of_shots.timestamps, np.vstack([whole.timestamps, of_video.timestamps]))
    gated = describe(side_by_side, "query", scope="shots", edit_score=0.9, gate=ensemble_gate())
    np.testing.assert_array_equal(gated.descriptors, of_shots.descriptors)


@pytest.mark.parametrize("role", ["query", "reference"])
def test_blank_rows_are_recorded(tmp_path: Path, role: Role) -> None:
    black = [np.zeros((112, 128, 3), np.uint8)] * (4 * FPS)
    write_video(tmp_path / "a.mp4", [*black, *moving_frames(2 * FPS, height=112, width=128, seed=1)], fps=FPS)
    found = describe(Media("a", tmp_path / "a.mp4"), role)
    assert found.blank is not None
    assert found.blank.tolist() == [True] * 4 + [False] * 2
    assert found.warnings == ("4 of 6 pictures are blank, of one color, bars or a ramp: no evidence",)


def test_near_duplicate_frames_of_a_query_are_dropped(tmp_path: Path) -> None:
    still, moving = moving_frames(1, height=112, width=128, seed=4), moving_frames(30, height=112, width=128, seed=5)
    path = tmp_path / "half_still.mp4"
    write_video(path, still * 30 + moving, fps=FPS)
    media = Media("half_still", path)
    query = describe(media, "query", max_cosine=0.975)
    assert len(describe(media, "reference", max_cosine=0.975)) == 6
    assert len(query) == 4
    assert (query.timestamps[:, 0] >= 3).sum() == 3


def test_a_gate_on_the_ensemble_scores_the_first_whole_frames(side_by_side: Media) -> None:
    calls: list[Tensors] = []
    describe(side_by_side, "query", edit_score=0.9, gate=ensemble_gate(max_frames=4), calls=calls)
    assert [list(tensors) for tensors in calls] == [["features"]]
    np.testing.assert_array_equal(calls[0]["features"], expected_rows(side_by_side)[:4, :7] + 1)


def test_what_the_gate_lets_pass_is_described_as_without_it(plain: Media, side_by_side: Media) -> None:
    for media in (plain, side_by_side):
        passed = describe(media, "query", edit_score=0.9, gate=ensemble_gate())
        without = describe(media, "query")
        np.testing.assert_array_equal(passed.descriptors, without.descriptors)
        np.testing.assert_array_equal(passed.timestamps, without.timestamps)
        assert (passed.gate, passed.edit_score) == ("passed", pytest.approx(0.9))


@pytest.mark.parametrize("use_pca", [False, True])
def test_rows_of_a_stopped_query_are_kept_for_readmission(side_by_side: Media, use_pca: bool) -> None:
    kept = describe(side_by_side, "query", edit_score=0.1, gate=ensemble_gate(), use_pca=use_pca)
    whole = describe(side_by_side, "reference", use_pca=use_pca)
    assert kept.gate == "stopped_rows_kept"
    assert kept.edit_score == pytest.approx(0.1)
    np.testing.assert_array_equal(kept.descriptors, whole.descriptors)
    np.testing.assert_array_equal(kept.timestamps, whole.timestamps)


def test_without_readmission_a_stopped_query_is_a_placeholder(plain: Media) -> None:
    stopped = describe(plain, "query", edit_score=0.1, gate=ensemble_gate(near_identical_cosine=None))
    expected = placeholder("plain", slot_timestamps(1), edit_score=0.1, num_dims=147)
    np.testing.assert_array_equal(stopped.descriptors, expected.descriptors)
    assert stopped.is_stopped
