"""Every kind of edit: the rules that all keep, and each one's effect against plain NumPy or a known picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.videos import moving_frames
from training.footage.edits import EDIT_GROUPS, EDITS, Edit, apply_edits, draw_edits
from training.footage.edits.appearance import (
    AddNoise,
    Blur,
    ColorJitter,
    EncodingQuality,
    Grayscale,
    JpegCompression,
    Pixelization,
)
from training.footage.edits.composition import BlendVideos, Grid, HStack, Overlay, OverlayOntoBackgroundVideo, VStack
from training.footage.edits.geometry import (
    ChangeAspectRatio,
    Crop,
    HFlip,
    Pad,
    PadBlurred,
    PerspectiveTransform,
    Rotate,
    Rotate90,
    VFlip,
)
from training.footage.edits.overlay import OverlayEmoji, OverlayShapes, OverlayText, Shape
from training.footage.edits.temporal import ChangeVideoSpeed, Fps
from training.footage.edits.wide import MORE_EDITS

Frame = NDArray[np.uint8]
CLIP = moving_frames(13, height=91, width=122, seed=1)
OTHERS = [moving_frames(30, height=64, width=50, seed=seed) for seed in (2, 3, 4)]


def applied(edit: Edit, frames: list[Frame] = CLIP) -> list[Frame]:
    return list(edit.apply(iter(frames), *(iter(other) for other in OTHERS[: edit.num_distractors])))


def first(edit: Edit, frame: Frame = CLIP[0]) -> NDArray[np.float64]:
    return applied(edit, [frame])[0].astype(np.float64)


def flat(*color: int) -> Frame:
    return np.full((90, 120, 3), color, np.uint8)


@pytest.mark.parametrize("kind", (EDITS | MORE_EDITS).values(), ids=EDITS | MORE_EDITS)
class TestEveryKind:
    def test_frames_stay_frames_of_one_size(self, kind: type[Edit]) -> None:
        for seed in range(5):
            frames = applied(kind.draw(np.random.default_rng(seed)))
            assert len({frame.shape for frame in frames}) == 1
            assert all(frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 for frame in frames)
            assert min(frames[0].shape[:2]) > 30

    def test_it_changes_something_but_not_its_input(self, kind: type[Edit]) -> None:
        before = [frame.copy() for frame in CLIP]
        frames = applied(kind.draw(np.random.default_rng(7)))
        assert all(np.array_equal(frame, kept) for frame, kept in zip(CLIP, before, strict=True))
        same = [edited.shape == frame.shape and np.array_equal(edited, frame) for edited, frame in zip(frames, CLIP)]  # noqa: B905
        assert not all(same) or len(frames) != len(CLIP)

    def test_the_same_seed_gives_the_same_edit_and_frames(self, kind: type[Edit]) -> None:
        edits = [kind.draw(np.random.default_rng(11)) for _ in range(2)]
        assert edits[0] == edits[1]
        one, two = (applied(edit) for edit in edits)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))

    def test_strengths_vary(self, kind: type[Edit]) -> None:
        rng = np.random.default_rng(3)
        drawn = {kind.draw(rng) for _ in range(30)}
        assert len(drawn) > 1 or not dataclasses.fields(kind)

    def test_its_speed_is_the_ratio_of_the_lengths(self, kind: type[Edit]) -> None:
        edit = kind.draw(np.random.default_rng(5))
        assert abs(len(applied(edit)) - len(CLIP) / edit.speed) <= 1

    def test_it_streams(self, kind: type[Edit]) -> None:
        edit = kind.draw(np.random.default_rng(2))
        num_read = 0

        def endless() -> Iterator[Frame]:
            nonlocal num_read
            while True:
                num_read += 1
                yield CLIP[num_read % len(CLIP)]

        assert len(list(islice(edit.apply(endless(), *(endless() for _ in range(edit.num_distractors))), 8))) == 8
        assert num_read <= 30 * (1 + edit.num_distractors)


def test_there_are_more_than_25_kinds_with_names_of_their_own() -> None:
    assert len(EDITS) == sum(len(group) for group in EDIT_GROUPS) > 25
    assert all(kind.name == name for name, kind in EDITS.items())


def test_draw_edits_takes_one_kind_of_a_group_in_order() -> None:
    group_of = {kind: index for index, group in enumerate(EDIT_GROUPS) for kind in group}
    seen: set[type[Edit]] = set()
    for seed, kind in enumerate(list(EDITS.values()) * 6):
        num_edits = 1 + seed % len(EDIT_GROUPS)
        edits = draw_edits(np.random.default_rng(seed), num_edits=num_edits, kind=kind)
        groups = [group_of[type(edit)] for edit in edits]
        assert len(edits) == num_edits
        assert kind in map(type, edits)
        assert groups == sorted(set(groups))
        seen.update(map(type, edits))
    assert seen == set(EDITS.values())


def test_apply_edits_hands_each_edit_its_own_distractors() -> None:
    white, red, blue = flat(255, 255, 255), flat(255, 0, 0), flat(0, 0, 255)
    clips = [iter([color]) for color in (red, blue)]
    (frame,) = apply_edits(iter([white]), [HStack(0), VStack(0)], clips)
    assert frame.shape == (180, 240, 3)
    assert [frame[45, 60].tolist(), frame[45, 180].tolist(), frame[135, 60].tolist()] == [
        [255, 255, 255],
        [255, 0, 0],
        [0, 0, 255],
    ]


@pytest.mark.parametrize("factor", [1.5, 0.6667, 1.2, 1.0])
def test_change_video_speed_shows_the_frame_of_its_time(factor: float) -> None:
    shown = list(ChangeVideoSpeed(factor).apply(iter(np.arange(60, dtype=np.uint8))))
    assert shown == [int(k * factor) for k in range(200) if int(k * factor) < 60]


def test_fps_holds_the_first_of_each_step() -> None:
    assert list(Fps(3).apply(iter(np.arange(8, dtype=np.uint8)))) == [0, 0, 0, 3, 3, 3, 6, 6]


def test_color_jitter_against_float64() -> None:
    edit = ColorJitter(brightness=0.8, contrast=1.3, saturation=0.5)
    toned = np.clip((CLIP[0] * 0.8 - 128) * 1.3 + 128, 0, 255)
    gray = (toned @ [0.299, 0.587, 0.114])[..., None]
    assert np.abs(first(edit) - np.clip(0.5 * toned + 0.5 * gray, 0, 255)).max() <= 1.5


def test_grayscale_against_luma_weights() -> None:
    gray = (CLIP[0] @ [0.299, 0.587, 0.114])[..., None]
    assert np.abs(first(Grayscale()) - gray).max() <= 1


def test_blur_keeps_the_mean_and_spreads_a_point_by_sigma() -> None:
    frame = np.zeros((91, 91, 3), np.uint8)
    frame[40:51, 40:51] = 255
    blurred = first(Blur(0.04), frame)
    profile = blurred[..., 0].sum(axis=0)
    position = np.arange(91)
    variance = np.average((position - 45) ** 2, weights=profile)
    box_variance = (11**2 - 1) / 12
    assert blurred.mean() == pytest.approx(frame.mean(), rel=0.02)
    assert variance - box_variance == pytest.approx((0.04 * 91) ** 2, rel=0.1)


def test_noise_has_its_standard_deviation_and_is_new_in_every_frame() -> None:
    one, two = applied(AddNoise(20.0, seed=4), [flat(128, 128, 128)] * 2)
    assert (one - 128.0).std() == pytest.approx(20, rel=0.02)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_pixelization_leaves_blocks() -> None:
    frame = first(Pixelization(0.25), CLIP[0][:88, :120])
    blocks = frame.reshape(22, 4, 30, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize(
    "edits", [(JpegCompression(90), JpegCompression(5)), (EncodingQuality(10), EncodingQuality(48))]
)
def test_worse_quality_is_further_from_the_frames(edits: tuple[Edit, Edit]) -> None:
    frames = moving_frames(6, height=96, width=128)
    errors = [
        np.mean([np.abs(np.subtract(a, b, dtype=float)).mean() for a, b in pairs])
        for pairs in (zip(applied(edit, frames), frames, strict=True) for edit in edits)
    ]
    assert errors[0] < 3 < errors[1] < 40


def test_crop_is_a_slice() -> None:
    edit = Crop(width=0.6, height=0.75, x=1.0, y=0.5)
    height, width = round(91 * 0.75), round(122 * 0.6)
    top = round((91 - height) / 2)
    assert np.array_equal(first(edit), CLIP[0][top : top + height, 122 - width :])


@pytest.mark.parametrize(("sides", "x", "y"), [("left_right", 12, 0), ("top_bottom", 0, 9), ("all", 12, 9)])
def test_pad_surrounds_the_frame_with_its_color(sides: Any, x: int, y: int) -> None:
    padded = first(Pad(sides, 0.1, (10, 200, 30)))
    assert padded.shape == (91 + 2 * y, 122 + 2 * x, 3)
    assert np.array_equal(padded[y : y + 91, x : x + 122], CLIP[0])
    assert ((padded == (10, 200, 30)).all(axis=2)).sum() >= padded.shape[0] * padded.shape[1] - 91 * 122


@pytest.mark.parametrize("frame", [CLIP[0], CLIP[0].transpose(1, 0, 2)], ids=["wide", "tall"])
def test_pad_blurred_lengthens_the_short_side(frame: Frame) -> None:
    padded = first(PadBlurred(1.5), np.ascontiguousarray(frame))
    border_px = (round(91 * 1.5) - 91) // 2
    axis = 0 if frame.shape[0] < frame.shape[1] else 1
    inside = np.take(padded, np.arange(border_px, border_px + 91), axis=axis)
    assert padded.shape[axis] == round(91 * 1.5)
    assert np.array_equal(inside, frame)
    assert np.take(padded, [0], axis=axis).mean() == pytest.approx(frame.mean(), abs=60)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (HFlip(), CLIP[0][:, ::-1]),
        (VFlip(), CLIP[0][::-1]),
        (Rotate90(1), CLIP[0].transpose(1, 0, 2)[::-1]),
        (Rotate90(2), CLIP[0][::-1, ::-1]),
        (Rotate90(3), CLIP[0].transpose(1, 0, 2)[:, ::-1]),
    ],
    ids=repr,
)
def test_flips_and_turns_move_pixels_only(edit: Edit, expected: Frame) -> None:
    assert np.array_equal(first(edit), expected)


@pytest.mark.parametrize("degrees", [10.0, -15.0])
def test_rotate_turns_counter_clockwise_about_the_centre(degrees: float) -> None:
    frame = np.zeros((101, 101, 3), np.uint8)
    frame[48:53, 78:83] = 255
    rows, columns = np.nonzero(first(Rotate(degrees), frame)[..., 0] > 128)
    angle = np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50))
    assert angle == pytest.approx(degrees, abs=0.5)


@pytest.mark.parametrize(("factor", "size"), [(0.5, (91, 61)), (2.0, (46, 122))])
def test_change_aspect_ratio_squeezes_one_side(factor: float, size: tuple[int, int]) -> None:
    assert first(ChangeAspectRatio(factor)).shape[:2] == size


def test_perspective_moves_the_corners_to_their_insets() -> None:
    insets = (0.1, 0.2, 0.05, 0.1, 0.2, 0.15, 0.1, 0.05)
    seen = first(PerspectiveTransform(insets), flat(255, 255, 255))[..., 0] > 128
    corners = [(0.1, 0.2), (0.95, 0.1), (0.8, 0.85), (0.1, 0.95)]
    x, y = (np.array(axis) for axis in zip(*corners, strict=True))
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    assert seen.mean() == pytest.approx(area, abs=0.02)
    for corner_x, corner_y in corners:
        inner = (np.array([corner_x, corner_y]) - 0.5) * 0.94 + 0.5
        outer = (np.array([corner_x, corner_y]) - 0.5) * 1.08 + 0.5
        assert seen[int(inner[1] * 89), int(inner[0] * 119)]
        assert not seen[int(outer[1] * 89), int(outer[0] * 119)]


def test_text_lies_around_its_line_and_inside_the_frame() -> None:
    changed = (
        first(OverlayText("a line far too long for so small a frame", 0.5, 0.15, (255, 0, 0)), flat(0, 0, 0)) > 0
    ).any(2)
    rows, columns = np.nonzero(changed)
    assert rows.mean() == pytest.approx(45, abs=4)
    assert np.ptp(rows) < 0.25 * 90
    assert 0.6 * 120 < np.ptp(columns) < 120


@pytest.mark.parametrize("emoji", ["smile", "wow", "heart"])
def test_an_emoji_fills_its_box_and_nothing_else(emoji: Any) -> None:
    changed = (first(OverlayEmoji(emoji, scale=0.5, x=1.0, y=0.0), flat(0, 0, 0)) > 0).any(axis=2)
    assert not changed[45:].any()
    assert not changed[:, : 120 - 45].any()
    assert 0.5 < changed[:45, 120 - 45 :].mean() < 0.9


@pytest.mark.parametrize(("kind", "part"), [("rectangle", 1.0), ("ellipse", np.pi / 4), ("triangle", 0.5)])
def test_shapes_cover_their_part_with_their_opacity(kind: Any, part: float) -> None:
    edit = OverlayShapes((Shape(kind, (0.25, 0.25, 0.75, 0.75), (250, 100, 50), 128),))
    frame = first(edit, flat(0, 0, 0))
    changed = frame[..., 0] > 0
    assert changed.sum() == pytest.approx(part * 60 * 45, rel=0.06)
    assert frame[45, 60].tolist() == pytest.approx([250 * 128 / 255, 100 * 128 / 255, 50 * 128 / 255], abs=1)


def test_overlay_puts_a_small_clip_on_the_copy() -> None:
    edited = first(Overlay(scale=0.5, x=1.0, y=1.0), flat(1, 2, 3))
    assert (edited[:44] == (1, 2, 3)).all()
    assert (edited[:, :59] == (1, 2, 3)).all()
    assert (edited[46:, 61:] != (1, 2, 3)).any(axis=2).mean() > 0.9


def test_overlay_onto_background_video_keeps_the_copy_small() -> None:
    edited = first(OverlayOntoBackgroundVideo(scale=0.5, x=0.0, y=1.0), flat(1, 2, 3))
    inner = edited[45:, :60]
    assert edited.shape == (90, 120, 3)
    assert (inner == (1, 2, 3)).all()
    assert (edited == (1, 2, 3)).all(axis=2).mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("position", [0, 1])
def test_stacks_put_the_copy_where_they_say(position: int) -> None:
    beside, above = first(HStack(position)), first(VStack(position))
    assert beside.shape == (91, 244, 3)
    assert above.shape == (182, 122, 3)
    assert np.array_equal(beside[:, 122 * position :][:, :122], CLIP[0])
    assert np.array_equal(above[91 * position :][:91], CLIP[0])


@pytest.mark.parametrize("position", range(4))
def test_grid_puts_the_copy_where_it_says(position: int) -> None:
    edited = first(Grid(position))
    row, column = divmod(position, 2)
    assert edited.shape == (182, 244, 3)
    assert np.array_equal(edited[91 * row :, 122 * column :][:91, :122], CLIP[0])


def test_blend_videos_is_a_weighted_mean() -> None:
    other = flat(200, 100, 0)
    (edited,) = BlendVideos(0.25).apply(iter([flat(0, 40, 80)]), iter([other]))
    assert edited[45, 60].tolist() == pytest.approx([50, 55, 60], abs=1)
