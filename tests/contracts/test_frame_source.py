"""What every FrameSource must do. A new source joins by one entry in `tests.frame_sources.IMPLEMENTATIONS`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import MediaError
from engine.records import Region, Span, View
from engine.video.source import FrameSource, InputSpec
from tests.frame_sources import IMPLEMENTATIONS, SAMPLING_FPS, Implementation, to_host
from tests.oracles import bicubic_resize, center_crop
from tests.videos import damage_tail, moving_frames, write_video

HEIGHT, WIDTH = 96, 128
VIDEO_FPS, NUM_VIDEO_FRAMES = 25, 130


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param


@pytest.fixture
def decoding(implementation: Implementation) -> Implementation:
    """An implementation that reads files itself."""
    if not implementation.reads_files:
        pytest.skip("it is given frames, and reads no files")
    return implementation


@pytest.fixture(scope="module")
def originals() -> list[NDArray[np.uint8]]:
    return moving_frames(NUM_VIDEO_FRAMES, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def video(
    implementation: Implementation, originals: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    write_video(path, originals, fps=VIDEO_FPS, codec=implementation.codec)
    return path


@pytest.fixture
def source(implementation: Implementation, video: Path) -> Iterator[FrameSource]:
    with implementation.source(video) as opened:
        yield opened


def expected_frames(
    *, num_frames: int = NUM_VIDEO_FRAMES, rate: float = VIDEO_FPS, fps: float = SAMPLING_FPS
) -> list[int]:
    """Slot n shows the last frame k whose time rounds to it: floor(k * fps / rate + 1/2) <= n."""
    due = [int(k * fps / rate + 0.5) for k in range(num_frames)]
    return [max(k for k in range(num_frames) if due[k] <= n) for n in range(int(num_frames * fps / rate + 0.5))]


def inputs(source: FrameSource, *specs: InputSpec, view: View = View()) -> dict[str, NDArray[np.uint8]]:  # noqa: B008
    """All chunks of a view joined."""
    chunks = list(source.model_inputs(specs, views=[view]))
    return {spec.name: np.concatenate([to_host(chunk.inputs[spec.name]) for chunk in chunks]) for spec in specs}


def native_pixels(source: FrameSource) -> NDArray[np.uint8]:
    """The frames (F, HEIGHT, WIDTH, 3) as the source has them: squares at their own size are not resized."""
    spec = InputSpec("native", HEIGHT)
    left, right = (
        inputs(source, spec, view=View(Region(x, 0, x + HEIGHT, HEIGHT)))["native"] for x in (0, WIDTH - HEIGHT)
    )
    return np.concatenate([left, right[:, :, 2 * HEIGHT - WIDTH :]], axis=2)


class TestFrames:
    def test_they_are_those_of_the_sampling_rule(self, source: FrameSource, originals: list[NDArray[np.uint8]]) -> None:
        pixels = native_pixels(source).astype(np.int16)
        nearest = [int(np.argmin([np.abs(frame - original).mean() for original in originals])) for frame in pixels]
        assert nearest == expected_frames()
        assert source.num_frames == len(expected_frames())

    def test_chunks_hold_uint8_squares_under_the_names_of_the_specs(self, source: FrameSource) -> None:
        specs = [InputSpec("small", 32), InputSpec("large", 80, fit="center_crop")]
        num_rows = 0
        for chunk in (chunk.inputs for chunk in source.model_inputs(specs)):
            assert list(chunk) == ["small", "large"]
            num_rows += len(chunk["small"])
            assert len(chunk["small"]) >= 1
            for spec in specs:
                assert chunk[spec.name].dtype == np.uint8
                assert chunk[spec.name].shape == (len(chunk["small"]), spec.size_px, spec.size_px, 3)
        assert num_rows == source.num_frames > len(chunk["small"])

    def test_specs_asked_for_together_or_alone_are_the_same(self, source: FrameSource) -> None:
        specs = [InputSpec("a", 32), InputSpec("b", 32, fit="center_crop"), InputSpec("c", 64)]
        together = inputs(source, *specs)
        for spec in specs:
            np.testing.assert_array_equal(together[spec.name], inputs(source, spec)[spec.name])

    def test_every_pass_gives_the_same_bytes(self, source: FrameSource) -> None:
        first = inputs(source, InputSpec("a", 48))["a"]
        source.scene_statistics()
        assert inputs(source, InputSpec("a", 48))["a"].tobytes() == first.tobytes()

    def test_frames_are_repeated_where_the_video_is_slower_than_the_slots(
        self, implementation: Implementation, tmp_path: Path
    ) -> None:
        path = tmp_path / "slow.mp4"
        write_video(path, moving_frames(7, height=HEIGHT, width=WIDTH), fps=2, codec=implementation.codec)
        with implementation.source(path, fps=6) as source:
            rows = inputs(source, InputSpec("a", 32))["a"]
        wanted = expected_frames(num_frames=7, rate=2, fps=6)
        assert len(rows) == len(wanted) == 21
        changes = [bool((rows[n] != rows[n - 1]).any()) for n in range(1, len(rows))]
        assert changes == [wanted[n] != wanted[n - 1] for n in range(1, len(wanted))]

    def test_a_clip_shorter_than_a_sampling_interval_has_one_frame(
        self, implementation: Implementation, tmp_path: Path
    ) -> None:
        path = tmp_path / "short.mp4"
        frames = moving_frames(8, height=HEIGHT, width=WIDTH)
        write_video(path, frames, codec=implementation.codec)
        with implementation.source(path, fps=1) as source:
            pixels = native_pixels(source).astype(np.int16)
        assert [int(np.argmin([np.abs(row - frame).mean() for frame in frames])) for row in pixels] == [7]

    @pytest.mark.parametrize("max_frames", [1, 8, 11, 21, 1000])
    def test_max_frames_keeps_the_first(self, source: FrameSource, max_frames: int) -> None:
        everything = inputs(source, InputSpec("a", 32))["a"]
        np.testing.assert_array_equal(
            inputs(source, InputSpec("a", 32), view=View(span=Span(stop=max_frames)))["a"], everything[:max_frames]
        )

    @pytest.mark.parametrize("max_frames", [None, 11])
    def test_each_frame_comes_with_the_time_it_stands_for(self, source: FrameSource, max_frames: int | None) -> None:
        chunks = list(source.model_inputs([InputSpec("a", 32)], views=[View(span=Span(stop=max_frames))]))
        assert all(len(chunk.timestamps) == len(chunk.inputs["a"]) for chunk in chunks)
        times = np.concatenate([chunk.timestamps for chunk in chunks])
        assert times.dtype == np.float32
        slots = np.arange(source.num_frames if max_frames is None else max_frames)
        expected = np.stack([slots / SAMPLING_FPS, (slots + 1) / SAMPLING_FPS], axis=1).astype(np.float32)
        np.testing.assert_array_equal(times, expected)

    def test_each_frame_says_whether_it_is_blank(
        self, implementation: Implementation, originals: list[NDArray[np.uint8]], tmp_path: Path
    ) -> None:
        black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * VIDEO_FPS
        write_video(tmp_path / "a.mp4", [*black, *originals[:VIDEO_FPS]], fps=VIDEO_FPS, codec=implementation.codec)
        with implementation.source(tmp_path / "a.mp4", fps=2) as source:
            chunks = list(source.model_inputs([InputSpec("a", 64), InputSpec("b", 32)]))
        assert all(chunk.is_blank.shape == (len(chunk.timestamps),) for chunk in chunks)
        assert np.concatenate([chunk.is_blank for chunk in chunks]).tolist() == [True, True, False, False]

    def test_a_pass_may_be_left_early(self, source: FrameSource) -> None:
        everything = inputs(source, InputSpec("a", 32))["a"]
        for chunk in source.model_inputs([InputSpec("a", 32)]):
            rows = chunk.inputs["a"]
            np.testing.assert_array_equal(rows, everything[: len(rows)])
            break
        np.testing.assert_array_equal(inputs(source, InputSpec("a", 32))["a"], everything)


VIEWS = [
    View(),
    View(Region(8, 0, 72, 40), Span(3, 17)),
    View(span=Span(3, 5)),
    View(Region(0, 10, 50, 60)),
    View(Region(8, 0, 72, 40), Span(12, 999)),
    View(Region(8, 0, 72, 40), step=2),
    View(span=Span(3, 20), step=3),
    View(span=Span(5, 9), step=7),
]


class TestViews:
    def test_all_views_of_one_pass_are_those_of_a_pass_each(self, source: FrameSource) -> None:
        spec = InputSpec("a", 32)
        found: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        times = defaultdict(list)
        for chunk in source.model_inputs([spec], views=VIEWS):
            found[chunk.view].append(to_host(chunk.inputs["a"]))
            times[chunk.view].append(chunk.timestamps)
        for place, view in enumerate(VIEWS):
            alone = inputs(source, spec, view=view)["a"]
            np.testing.assert_array_equal(np.concatenate(found[place]), alone)
            start, stop = view.span.limited(source.num_frames)
            everything = inputs(source, spec, view=View(view.region))["a"]
            np.testing.assert_array_equal(alone, everything[start : stop : view.step])
            slots = np.arange(start, stop, view.step)
            np.testing.assert_allclose(np.concatenate(times[place])[:, 0], slots / SAMPLING_FPS, rtol=1e-6)

    def test_statistics_of_spans_are_those_of_their_frames_alone(self, source: FrameSource) -> None:
        whole = source.scene_statistics()
        spans = [Span(), Span(2, 9), Span(9, 14), Span(4, 21)]
        found = dict(source.span_statistics(spans))
        assert set(found) == set(range(len(spans)))
        np.testing.assert_array_equal(found[0].maps.variance, whole.variance)
        np.testing.assert_array_equal(found[0].maps.edge_mean, whole.edge_mean)
        pixels = native_pixels(source)
        for place, span in enumerate(spans):
            start, stop = span.limited(source.num_frames)
            frames = pixels[start:stop].astype(np.float64)
            assert found[place].maps.num_frames == stop - start
            np.testing.assert_allclose(
                found[place].maps.variance, frames.var(axis=0).sum(axis=-1), rtol=1e-9, atol=1e-9
            )
            assert found[place].thumbnails.shape == (min(20, stop - start), HEIGHT, WIDTH)
            luma = pixels[start:stop] @ np.array([0.299, 0.587, 0.114])
            assert np.abs(found[place].thumbnails[0] - luma[0]).max() <= 1


class TestInterpolation:
    def test_bilinear_is_that_of_pillow(self, source: FrameSource, implementation: Implementation) -> None:
        fitted = inputs(source, InputSpec("a", 56, interpolation="bilinear"))["a"]
        for row, pixels in zip(fitted, native_pixels(source), strict=True):
            expected = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.Resampling.BILINEAR))
            difference = np.abs(row.astype(np.int16) - expected)
            assert difference.mean() < implementation.mean_resize_difference
            assert difference.max() <= max(4, implementation.max_resize_difference)


class TestFits:
    def test_stretch(self, source: FrameSource, implementation: Implementation) -> None:
        fitted = inputs(source, InputSpec("a", 56))["a"]
        for row, pixels in zip(fitted, native_pixels(source), strict=True):
            difference = np.abs(row - bicubic_resize(pixels, height=56, width=56))
            assert difference.max() <= implementation.max_resize_difference

    @pytest.mark.parametrize("size_px", [56, 57, 120])
    def test_center_crop(self, source: FrameSource, implementation: Implementation, size_px: int) -> None:
        fitted = inputs(source, InputSpec("a", size_px, fit="center_crop"))["a"]
        for row, pixels in zip(fitted, native_pixels(source), strict=True):
            assert np.abs(row - center_crop(pixels, size_px=size_px)).max() <= implementation.max_resize_difference

    def test_a_region_is_cut_out_before_resizing(self, source: FrameSource, implementation: Implementation) -> None:
        region = Region(17, 5, 117, 66)
        stretch, crop = InputSpec("stretch", 56), InputSpec("crop", 56, fit="center_crop")
        fitted = inputs(source, stretch, crop, view=View(region))
        for number, pixels in enumerate(native_pixels(source)):
            part = pixels[region.y0 : region.y1, region.x0 : region.x1]
            expected = {"stretch": bicubic_resize(part, height=56, width=56), "crop": center_crop(part, size_px=56)}
            for name, oracle in expected.items():
                assert np.abs(fitted[name][number] - oracle).max() <= implementation.max_resize_difference

    @pytest.mark.parametrize("region", [Region(0, 0, WIDTH + 1, 10), Region(0, 0, 10, HEIGHT + 1)])
    def test_a_region_outside_the_frame_fails(self, source: FrameSource, region: Region) -> None:
        with pytest.raises(ValueError, match="is not inside the frame of 128x96 pixels"):
            inputs(source, InputSpec("a", 32), view=View(region))


def test_scene_statistics_are_over_all_frames(source: FrameSource) -> None:
    statistics = source.scene_statistics()
    pixels = native_pixels(source).astype(np.float64)
    assert statistics.num_frames == len(pixels)
    np.testing.assert_allclose(statistics.variance, pixels.var(axis=0).sum(axis=-1), rtol=1e-9, atol=1e-9)


class TestDamagedFiles:
    @pytest.fixture
    def damaged(self, decoding: Implementation, video: Path, tmp_path: Path) -> Iterator[FrameSource]:
        path = tmp_path / "damaged.mp4"
        path.write_bytes(video.read_bytes())
        damage_tail(path, keep=0.6)
        with decoding.source(path) as opened:
            yield opened

    def test_what_decodes_counts(self, damaged: FrameSource, source: FrameSource) -> None:
        whole, rest = (inputs(opened, InputSpec("a", 48))["a"] for opened in (source, damaged))
        assert 0 < len(rest) < len(whole)
        assert damaged.num_frames == len(rest)
        # The last frame before the damage may carry some of it.
        np.testing.assert_array_equal(rest[:-1], whole[: len(rest) - 1])

    def test_the_loss_is_told(self, damaged: FrameSource, source: FrameSource) -> None:
        damaged.scene_statistics()
        assert damaged.warnings
        assert all(line and "\n" not in line for line in damaged.warnings)
        source.scene_statistics()
        assert source.warnings == ()

    def test_scene_statistics_leave_out_what_is_lost(self, damaged: FrameSource) -> None:
        statistics = damaged.scene_statistics()
        pixels = native_pixels(damaged).astype(np.float64)
        assert statistics.num_frames == damaged.num_frames == len(pixels)
        np.testing.assert_allclose(statistics.variance, pixels.var(axis=0).sum(axis=-1), rtol=1e-9, atol=1e-9)

    def test_every_pass_gives_the_same_bytes(self, damaged: FrameSource) -> None:
        first = inputs(damaged, InputSpec("a", 48))["a"]
        assert inputs(damaged, InputSpec("a", 48))["a"].tobytes() == first.tobytes()


class TestUnusableFiles:
    def read(self, decoding: Implementation, path: Path) -> None:
        with decoding.source(path, fps=1) as source:
            inputs(source, InputSpec("a", 32))

    def test_missing_file_fails(self, decoding: Implementation, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"gone\.mp4: "):
            self.read(decoding, tmp_path / "gone.mp4")

    @pytest.mark.parametrize("content", [b"", b"not a video\n" * 100])
    def test_a_file_that_is_no_video_fails(self, decoding: Implementation, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "text.mp4").write_bytes(content)
        with pytest.raises(MediaError, match=r"text\.mp4: "):
            self.read(decoding, tmp_path / "text.mp4")

    def test_a_video_of_which_nothing_decodes_fails(
        self, decoding: Implementation, video: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "void.mp4").write_bytes(video.read_bytes())
        damage_tail(tmp_path / "void.mp4", keep=0.0)
        with pytest.raises(MediaError, match=r"void\.mp4: none of its 130 frames decodes"):
            self.read(decoding, tmp_path / "void.mp4")


def test_close_may_be_called_at_any_time_and_again(implementation: Implementation, video: Path) -> None:
    with implementation.source(video) as source:
        next(iter(source.model_inputs([InputSpec("a", 32)])))
        source.close()
