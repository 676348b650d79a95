from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.files import load_arrays, save_arrays


def test_round_trip_is_exact_and_repeatable(tmp_path: Path) -> None:
    arrays = {
        "ids": np.array(["a", "übung"]),
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "flag": np.array(True),
    }
    save_arrays(tmp_path / "a.npz", arrays)
    save_arrays(tmp_path / "b.npz", arrays)
    loaded = load_arrays(tmp_path / "a.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_object_arrays_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", good=np.zeros(2), video_ids=np.array(["a", 1], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: array 'video_ids' holds Python objects.*dtype 'U'"):
        load_arrays(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save_arrays(tmp_path / "b.npz", {"ids": np.array([None])})
    assert not (tmp_path / "b.npz").exists()


def test_other_files_fail(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_arrays(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("mean,components\n")
    with pytest.raises(ValueError, match=r"not a NumPy \.npz archive"):
        load_arrays(tmp_path / "text.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not a NumPy \.npz archive"):
        load_arrays(tmp_path / "single.npy")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_fail(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, rows=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        load_arrays(path)
    path.write_bytes(whole[:4000] + bytes(16) + whole[4016:])
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        load_arrays(path)
