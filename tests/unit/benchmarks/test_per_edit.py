"""Recall of single edits: pictures that are drawn, what is edited, the threshold, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lmdb")

from benchmarks.edit_strengths import LEVELS, STRENGTHS, edit_of, levels_of
from benchmarks.per_edit import (
    Cell,
    Pictures,
    edited_pictures,
    measure,
    open_embed,
    read_pictures,
    table,
    threshold_of,
)
from engine.errors import ConfigError
from engine.projection import l2_normalize
from engine.records import FloatArray
from tests.videos import moving_frames
from training.footage.edits import EDITS
from training.footage.edits.wide import MORE_EDITS
from training.footage.resizing import Frame
from training.store.frame_store import FrameStore, build_store, find_sources

PICTURES = Pictures(
    [moving_frames(1, height=60, width=80, seed=seed)[0] for seed in range(12)],
    4,
    [moving_frames(1, height=60, width=80, seed=100 + seed)[0] for seed in range(3)],
)


def small_gray(pictures: Sequence[Frame]) -> FloatArray:
    """A descriptor that survives slight edits: the grey picture at 8x8 without its mean."""
    rows = [
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (8, 8), interpolation=cv2.INTER_AREA).ravel()
        for picture in pictures
    ]
    gray = np.stack(rows).astype(np.float32)
    return l2_normalize(gray - gray.mean(axis=1, keepdims=True))


def constant(pictures: Sequence[Frame]) -> FloatArray:
    """A descriptor that tells nothing apart."""
    return np.ones((len(pictures), 1), np.float32)


def test_all_kinds_that_a_picture_can_show_have_strengths() -> None:
    assert set(STRENGTHS) == set(EDITS | MORE_EDITS) - {"change_video_speed", "fps"}
    assert {len(values) for values in STRENGTHS.values()} == {1, 3}


@pytest.mark.parametrize("kind", STRENGTHS)
def test_every_strength_is_an_edit_that_the_seed_decides(kind: str) -> None:
    for level in levels_of(kind):
        drawn = [edited_pictures(PICTURES, kind, level, seed=3) for _ in range(2)]
        assert all(np.array_equal(one, again) for one, again in zip(*drawn, strict=True))
        assert len(drawn[0]) == 4
        values = STRENGTHS[kind][levels_of(kind).index(level)]
        edit = edit_of(kind, level, np.random.default_rng(0))
        assert all(getattr(edit, key) == value for key, value in values.items() if hasattr(edit, key))


@pytest.mark.parametrize("kind", ["add_noise", "pixelization", "jpeg_compression", "blur", "low_resolution"])
def test_a_harsher_strength_is_further_from_the_picture(kind: str) -> None:
    errors = [
        np.mean(
            [
                np.abs(np.subtract(edited, picture, dtype=float)).mean()
                for edited, picture in zip(
                    edited_pictures(PICTURES, kind, level, seed=1), PICTURES.references, strict=False
                )
            ]
        )
        for level in LEVELS
    ]
    assert errors[0] < errors[1] < errors[2]


def test_the_threshold_is_exceeded_by_its_share_of_the_wrong_pairs() -> None:
    scores = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    np.fill_diagonal(scores, 5)
    threshold = threshold_of([scores, scores], false_positive_rate=0.1)
    wrong = scores[~np.eye(40, 60, dtype=bool)]
    assert (wrong > threshold).mean() == pytest.approx(0.1, abs=0.002)


def test_a_descriptor_that_sees_something_has_recall_and_one_that_does_not_has_none() -> None:
    cells, thresholds = measure(
        {"seeing": small_gray, "blind": constant},
        PICTURES,
        kinds=["jpeg_compression", "hflip"],
        false_positive_rate=0.02,
        seed=1,
    )
    recalls = {(cell.weights, cell.kind, cell.level): cell.recall for cell in cells}
    assert recalls["seeing", "jpeg_compression", "slight"] == 1
    assert recalls["seeing", "hflip", "clear"] < 1
    assert {cell.recall for cell in cells if cell.weights == "blind"} == {0}
    assert set(thresholds) == {"seeing", "blind"}


def test_pictures_that_are_alike_are_drawn_once(tmp_path: Path) -> None:
    for number, picture in enumerate([*PICTURES.references[:6], PICTURES.references[0]]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    build_store(find_sources([tmp_path]), tmp_path / "store")
    with FrameStore.open(tmp_path / "store") as store:
        pictures = read_pictures(store, num_originals=2, num_others=3, seed=1)
        assert (len(pictures.references), len(pictures.others)) == (3, 3)
        assert min(pictures.references[0].shape[:2]) == 120
        with pytest.raises(ConfigError, match="has 6 different pictures"):
            read_pictures(store, num_originals=4, num_others=3, seed=1)


@pytest.mark.torch
def test_a_checkpoint_gives_unit_rows_that_do_not_depend_on_the_others(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    from engine.models.checkpoints import random_weights
    from engine.models.descriptor import build_descriptor_model

    model = build_descriptor_model("efficientnet_lite0_gem512")
    random_weights(model, seed=1)
    save_file(model.state_dict(), tmp_path / "best.safetensors")
    with ExitStack() as resources:
        embed = open_embed(tmp_path / "best.safetensors", preset="lite", resources=resources)
        rows = embed(PICTURES.references[:3])
        assert rows.shape == (3, 512)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
        assert embed(PICTURES.references[2:3])[0] == pytest.approx(rows[2], abs=1e-4)


def test_the_table_has_a_line_for_each_kind_and_weights_side_by_side() -> None:
    cells = [Cell(name, "crop", level, 0.5, 0.75) for name in ("old", "new") for level in LEVELS]
    lines = table([*cells, Cell("old", "hflip", "clear", 1.0, 1.0), Cell("new", "hflip", "clear", 0.0, 1.0)])
    assert lines[2].split() == ["crop", *["0.50"] * 6]
    assert lines[3].split() == ["hflip", "1.00", "0.00"]
    assert lines[-2].split() == ["mean", "recall", "0.625", "0.375"]
