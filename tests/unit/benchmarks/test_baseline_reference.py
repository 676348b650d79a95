from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.baseline_reference import EagerClip, check_same
from engine.errors import EngineError
from engine.gate_placeholder import placeholder
from engine.models.checkpoints import random_weights
from engine.models.clip import ClipVisual
from engine.records import Descriptors
from engine.video.sampling import slot_timestamps


def described(video_id: str, *, edit_score: float, num_rows: int = 4, seed: int = 0) -> Descriptors:
    rows = np.random.default_rng(seed).standard_normal((num_rows, 8)).astype(np.float32)
    return Descriptors(video_id, slot_timestamps(num_rows), rows, edit_score=edit_score)


BASELINE = [described("a", edit_score=0.2), described("b", edit_score=0.9, seed=1)]
STOPPED = placeholder("a", slot_timestamps(1), edit_score=0.2001, num_dims=8)


def test_the_tower_that_computes_every_token_gives_the_same_features() -> None:
    tower = ClipVisual(input_resolution=28, patch_size=14, width=16, layers=3, heads=2)
    random_weights(tower, seed=0)
    frames = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(EagerClip(tower)(frames), tower(frames))


def test_equal_decisions_and_near_descriptors_pass() -> None:
    near = replace(BASELINE[1], descriptors=1.1 * BASELINE[1].descriptors + np.float32(1e-3))
    lowest, largest = check_same([STOPPED, near], BASELINE, threshold=0.5)
    assert 0.999 < lowest < 1
    assert largest == pytest.approx(1e-4)


def test_other_decisions_frames_and_descriptors_are_refused() -> None:
    with pytest.raises(EngineError, match="a: the gate decides otherwise"):
        check_same(BASELINE, BASELINE, threshold=0.5)
    fewer = described("b", edit_score=0.9, num_rows=3)
    with pytest.raises(EngineError, match="b: 3 rows of other frames than the 4"):
        check_same([STOPPED, fewer], BASELINE, threshold=0.5)
    other = replace(BASELINE[1], descriptors=-BASELINE[1].descriptors)
    with pytest.raises(EngineError, match=r"lowest cosine with the baseline is -1\.0000; no time"):
        check_same([STOPPED, other], BASELINE, threshold=0.5)
