"""Computer animations: still grounds, moving figures, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.records import Media
from engine.video.media import index_timeline
from training.footage.animations import animation, make_animations
from training.footage.pans import NUM_FRAMES


def test_figures_move_before_a_still_background() -> None:
    for seed in range(5):
        frames = np.stack(list(animation(rng=np.random.default_rng(seed))))
        assert frames.shape[:2] == (NUM_FRAMES, 288)
        assert frames.shape[2] % 2 == 0
        is_still = (frames == frames[0]).all(axis=(0, 3))
        assert 0.1 < is_still.mean() < 1


def test_seeds_draw_other_animations() -> None:
    first, again, other = (next(animation(rng=np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_same_seed_gives_the_same_files_with_any_number_of_workers(tmp_path: Path) -> None:
    for name, num_workers in (("one", 1), ("two", 2)):
        make_animations(tmp_path / name, num_videos=3, seed=4, num_workers=num_workers)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["A000000.mp4", "A000001.mp4", "A000002.mp4"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert len(index_timeline(Media("A", tmp_path / "one" / name))) == NUM_FRAMES
