from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import StoreError
from engine.records import Descriptors
from engine.store.challenge_npz import read_npz, write_npz


def arrays(**changes: Any) -> dict[str, NDArray[Any]]:
    return {
        "video_ids": np.array(["Q2", "Q1", "Q2"]),
        "features": np.arange(6, dtype=np.float32).reshape(3, 2),
        "timestamps": np.array([[0, 1], [0, 1], [1, 2]]),
    } | changes


def saved(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays(**changes))
    return path


class TestRoundTrip:
    def test_with_what_the_gate_found(self, tmp_path: Path) -> None:
        times = np.array([[0, 1], [1.5, 2.25]], dtype=np.float32)
        rows = np.random.default_rng(0).standard_normal((2, 7)).astype(np.float32)
        videos = [
            Descriptors("Q9", times, rows, edit_score=0.1 + 0.2),
            Descriptors("Q1", times[:1], rows[:1], edit_score=1e-9, gate="stopped"),
            Descriptors("Q5", times, rows),
        ]
        write_npz(tmp_path / "a.npz", videos)
        for found, expected in zip(read_npz(tmp_path / "a.npz"), videos, strict=True):
            assert (found.video_id, found.edit_score, found.gate) == (
                expected.video_id,
                expected.edit_score,
                expected.gate,
            )
            np.testing.assert_array_equal(found.timestamps, expected.timestamps)
            np.testing.assert_array_equal(found.descriptors, expected.descriptors)

    def test_without_a_gate_there_are_only_the_arrays_of_the_challenge(self, tmp_path: Path) -> None:
        write_npz(tmp_path / "a.npz", [Descriptors("R1", np.zeros((1, 2), np.float32), np.ones((1, 3), np.float32))])
        with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
            found = {name: (archive[name].dtype.str, archive[name].shape) for name in archive.files}
        assert found == {"video_ids": ("<U2", (1,)), "features": ("<f4", (1, 3)), "timestamps": ("<f4", (1, 2))}

    def test_with_blank_rows(self, tmp_path: Path) -> None:
        times, rows = np.array([[0, 1], [1, 2]], np.float32), np.eye(2, dtype=np.float32)
        videos = [Descriptors(name, times, rows, blank=np.array(flags)) for name, flags in
                  [("a", [True, False]), ("b", [False, False])]]  # fmt: skip
        write_npz(tmp_path / "a.npz", videos)
        assert [found.blank.tolist() for found in read_npz(tmp_path / "a.npz") if found.blank is not None] == [
            [True, False],
            [False, False],
        ]
        write_npz(tmp_path / "b.npz", [*videos, Descriptors("c", times, rows)])
        assert [found.blank for found in read_npz(tmp_path / "b.npz")] == [None] * 3

    def test_the_gate_of_an_older_version(self, tmp_path: Path) -> None:
        path = saved(tmp_path, video_ids=np.array(["Q1", "Q2", "Q2"]), gated=np.array([True, False, False]))
        assert [video.gate for video in read_npz(path)] == ["stopped", "passed"]

    def test_recorded_files(self, golden: Path, tmp_path: Path) -> None:
        references = read_npz(golden / "postprocess" / "test_refs_sn.npz")
        assert references[0].video_id == "R200000"
        np.testing.assert_array_equal(references[0].timestamps[:3], [[0, 1], [1, 2], [2, 3]])
        write_npz(tmp_path / "a.npz", references)
        recorded = np.load(golden / "postprocess" / "test_refs_sn.npz")
        written = np.load(tmp_path / "a.npz")
        np.testing.assert_array_equal(written["features"], recorded["features"])
        np.testing.assert_array_equal(written["video_ids"], recorded["video_ids"])

    @pytest.mark.parametrize("dimensions", [(), (3, 4)])
    def test_nothing_or_several_dimensions_fail(self, tmp_path: Path, dimensions: tuple[int, ...]) -> None:
        videos = [Descriptors("a", np.zeros((1, 2), np.float32), np.ones((1, dims), np.float32)) for dims in dimensions]
        with pytest.raises(StoreError, match=r"cannot write .*a\.npz: expected descriptors of one dimension, got"):
            write_npz(tmp_path / "a.npz", videos)


class TestReading:
    def test_rows_of_a_video_need_not_be_together(self, tmp_path: Path) -> None:
        first, second = read_npz(saved(tmp_path))
        assert (first.video_id, second.video_id) == ("Q2", "Q1")
        np.testing.assert_array_equal(first.descriptors, [[0, 1], [4, 5]])
        np.testing.assert_array_equal(first.timestamps, [[0, 1], [1, 2]])
        np.testing.assert_array_equal(second.descriptors, [[2, 3]])

    def test_many_videos_keep_their_first_order(self, tmp_path: Path) -> None:
        ids = np.random.default_rng(0).integers(0, 50, 400)
        names = np.array([f"v{number}" for number in ids])
        path = saved(tmp_path, video_ids=names, features=np.arange(400.0)[:, None], timestamps=np.arange(400))
        videos = read_npz(path)
        assert [video.video_id for video in videos] == list(dict.fromkeys(names.tolist()))
        for video in videos:
            np.testing.assert_array_equal(video.descriptors[:, 0], np.flatnonzero(names == video.video_id))

    @pytest.mark.parametrize(
        ("starts_s", "interval_s"),
        [([0, 1, 2, 3], 2), ([3, 1.5, 1, 9], 2), ([0, 1.5, 0.5, 2], 0.5), ([4, 4, 4, 4], 1), ([0, 1, 2, 1], 2)],
    )
    def test_a_start_alone_lasts_one_sampling_interval(
        self, tmp_path: Path, starts_s: list[float], interval_s: float
    ) -> None:
        ids = np.array(["a", "b", "a", "b"])  # a time between rows of two videos says nothing
        times = np.array(starts_s, dtype=np.float32)
        first, second = read_npz(saved(tmp_path, video_ids=ids, features=np.eye(4), timestamps=times))
        np.testing.assert_array_equal(first.timestamps, np.stack([times[::2], times[::2] + interval_s], axis=1))
        np.testing.assert_array_equal(second.timestamps, np.stack([times[1::2], times[1::2] + interval_s], axis=1))

    @pytest.mark.parametrize("dtype", [np.int64, np.uint16])
    def test_numbers_become_the_ids_of_the_challenge(self, tmp_path: Path, dtype: type) -> None:
        path = saved(tmp_path, video_ids=np.array([7, 20, 7], dtype=dtype))
        assert [video.video_id for video in read_npz(path, role="query")] == ["Q000007", "Q000020"]
        assert [video.video_id for video in read_npz(path, role="reference")] == ["R000007", "R000020"]
        with pytest.raises(StoreError, match="video_ids are numbers; say whether they are of queries"):
            read_npz(path)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_other_floats_become_float32(self, tmp_path: Path, dtype: type) -> None:
        path = saved(tmp_path, features=np.full((3, 2), 0.1, dtype=dtype))
        rows = read_npz(path)[0].descriptors
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, np.full((2, 2), np.float32(dtype(0.1))))


class TestBadFiles:
    def test_objects_fail_without_being_unpickled(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="'video_ids' holds Python objects"):
            read_npz(saved(tmp_path, video_ids=np.array(["Q1", "Q2", "Q3"], dtype=object)))

    def test_missing_arrays_fail(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", features=np.zeros((1, 2)))
        with pytest.raises(StoreError, match=r"a\.npz lacks the arrays \['timestamps', 'video_ids'\]"):
            read_npz(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        "changes",
        [
            {"video_ids": np.array([["Q1"], ["Q2"], ["Q3"]])},
            {"video_ids": np.array("Q1")},
            {"features": np.zeros(3, dtype=np.float32)},
            {"features": np.zeros((2, 2), dtype=np.float32)},
            {"features": np.zeros((3, 2), dtype=np.int64)},
            {"timestamps": np.zeros((3, 3))},
            {"timestamps": np.zeros(2)},
            {"timestamps": np.array(["0", "1", "2"])},
            {"gate_states": np.array(["passed", "stopped"])},
            {"gated": np.zeros(2, dtype=bool)},
            {"edit_scores": np.array(["0", "1", "2"])},
        ],
    )
    def test_arrays_that_do_not_fit_fail(self, tmp_path: Path, changes: dict[str, NDArray[Any]]) -> None:
        (name,) = changes
        with pytest.raises(StoreError, match=rf"a\.npz: expected video_ids \(N,\).* got .*{name} "):
            read_npz(saved(tmp_path, **changes))

    def test_unknown_states_of_the_gate_fail(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"a\.npz: descriptors of 'Q2': unknown state of the gate 'open'"):
            read_npz(
                saved(tmp_path, video_ids=np.array(["Q1", "Q2", "Q2"]), gate_states=np.array(["passed"] + 2 * ["open"]))
            )

    def test_ids_of_other_kinds_fail(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="strings or numbers, got dtype float64"):
            read_npz(saved(tmp_path, video_ids=np.zeros(3)), role="query")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
    def test_values_that_are_not_finite_float32_fail(self, tmp_path: Path, bad: float) -> None:
        features = np.ones((3, 2))
        features[1, 1] = bad
        with pytest.raises(StoreError, match=r"a\.npz: descriptors of 'Q1': expected finite values"):
            read_npz(saved(tmp_path, features=features))
