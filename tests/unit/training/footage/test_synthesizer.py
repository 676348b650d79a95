"""Ground truth against what is seen: the frames of the sources carry their own number as a bar code."""

from __future__ import annotations

import csv
import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import MediaError
from engine.records import Match, Media
from engine.store.tables import read_ground_truth
from tests.videos import moving_frames, write_video
from training.footage.edits import EDITS
from training.footage.edits.appearance import Blur
from training.footage.edits.temporal import ChangeVideoSpeed, Fps
from training.footage.query_plans import Footage, QueryPlan, Segment, Source, plan_queries, probe_sources, true_matches
from training.footage.synthesizer import render_query, synthesize

NUM_BITS = 9
NOT_CODED = -1


def coded_frame(number: int) -> NDArray[np.uint8]:
    """Columns that are white where the bit of the number is set, and below them the opposite."""
    bits = np.array([number >> bit & 1 for bit in range(NUM_BITS)], np.uint8)
    columns = np.stack([bits, 1 - bits]) * 255
    return columns.repeat(48, axis=0).repeat(16, axis=1)[..., None].repeat(3, axis=2)


def read_code(frame: NDArray[np.uint8]) -> int:
    """The number of a coded frame, `NOT_CODED` for any other."""
    cells = np.asarray(frame, float).mean(axis=2).reshape(2, 48, NUM_BITS, 16)[:, 16:32, :, 5:11].mean(axis=(1, 3))
    if np.abs(cells[0] - cells[1]).min() < 128:
        return NOT_CODED
    return sum(1 << bit for bit in range(NUM_BITS) if cells[0, bit] > cells[1, bit])


def decode(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """Times and frames, by PyAV alone."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Media], list[Media]]:
    """References of 25, 20 and 30 frames per second, one with sound; distractors of flat grey."""
    folder = tmp_path_factory.mktemp("sources")
    references = []
    for fps, audio in ((25, False), (20, True), (30, False)):
        references.append(Media(f"R{fps}", folder / f"R{fps}.mp4"))
        write_video(references[-1].path, map(coded_frame, range(12 * fps)), fps=fps, audio=audio)
    distractors = [Media(name, folder / f"{name}.mp4") for name in ("D1", "D2")]
    for media in distractors:
        write_video(media.path, [np.full((96, 144, 3), 128, np.uint8)] * 90, fps=15)
    return references, distractors


def check(plan: QueryPlan, path: Path, *, held_frames: int = 0) -> None:
    """At every claimed time of the query, the claimed frame of the reference is seen, and no reference elsewhere.

    What is seen may be late by a frame of the reference, by one of the query where a change of speed had to choose
    among those, and by the frames that an edit holds.
    """
    copies = [segment for segment in plan.segments if segment.is_copy]
    claims = list(zip(true_matches(plan), copies, strict=True))
    for time_s, frame in decode(path):
        number = read_code(frame)
        at = [claim for claim in claims if claim[0].query_start_s - 1e-6 <= time_s < claim[0].query_end_s - 1e-6]
        if not at:
            assert number == NOT_CODED, f"{plan.query_id} shows reference frame {number} at {time_s} s"
            continue
        ((match, segment),) = at
        ref_fps = segment.footage.source.fps
        late_frames = (segment.speed != 1) + held_frames * segment.speed
        late_s = claimed_ref_time_s(match, time_s) - number / ref_fps
        assert -1e-6 <= late_s <= float(1 / ref_fps) + late_frames * float(1 / plan.fps) + 1e-6


def claimed_ref_time_s(match: Match, query_time_s: float) -> float:
    part = (query_time_s - match.query_start_s) / (match.query_end_s - match.query_start_s)
    return match.ref_start_s + part * (match.ref_end_s - match.ref_start_s)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_claimed_times_show_the_claimed_frames(
    sources: tuple[list[Media], list[Media]], tmp_path: Path, seed: int
) -> None:
    references, distractors = (probe_sources(media, max_source_s=60) for media in sources)
    drawn = plan_queries(references, distractors=distractors, num_copies=6, num_plain=1, seed=seed)
    for plan in drawn:
        # The bar code survives changes of speed, not those of the picture.
        segments = [
            dataclasses.replace(
                segment,
                edits=tuple(edit for edit in segment.edits if isinstance(edit, ChangeVideoSpeed)),
                distractors=(),
            )
            for segment in plan.segments
        ]
        rendered = render_query(dataclasses.replace(plan, segments=tuple(segments)), folder=tmp_path, short_side_px=288)
        assert sum(segment.num_frames for segment in segments) - 2 <= sum(s.num_frames for s in rendered.segments)
        check(rendered, tmp_path / f"{plan.query_id}.mp4")


@pytest.mark.parametrize("factor", [1.75, 0.6])
def test_speed_trims_inserts_and_held_frames_together(
    sources: tuple[list[Media], list[Media]], tmp_path: Path, factor: float
) -> None:
    references, distractors = (probe_sources(media, max_source_s=60) for media in sources)
    unrelated = Segment(Footage(distractors[0], 1.0), num_frames=30)
    edits = (ChangeVideoSpeed(factor), Fps(3), Blur(0.01))
    segments = [Segment(Footage(ref, 3.217), num_frames=90, is_copy=True, edits=edits) for ref in references]
    plan = QueryPlan("Q1", "two", Fraction(25), (segments[0], unrelated, segments[1], segments[2], unrelated))
    rendered = render_query(plan, folder=tmp_path, short_side_px=288)
    assert [segment.num_frames for segment in rendered.segments] == [90, 30, 90, 90, 30]
    check(rendered, tmp_path / "Q1.mp4", held_frames=2)


def test_unrelated_footage_fills_the_frame_or_is_letterboxed(tmp_path: Path) -> None:
    white = np.full((96, 128, 3), 255, np.uint8)
    for name, frame in (("wide", white), ("narrow", white[:, :64])):
        write_video(tmp_path / f"{name}.mp4", [frame] * 75, fps=25)
    wide, narrow = probe_sources(
        [Media(name, tmp_path / f"{name}.mp4") for name in ("wide", "narrow")], max_source_s=60
    )
    segments = [
        Segment(Footage(source, 0.0), num_frames=5, is_letterboxed=is_letterboxed)
        for source, is_letterboxed in ((wide, True), (narrow, False), (narrow, True))
    ]
    render_query(QueryPlan("Q1", "plain", Fraction(25), tuple(segments)), folder=tmp_path, short_side_px=288)
    darkest = [frame.min() for _, frame in decode(tmp_path / "Q1.mp4")]
    assert min(darkest[:10]) > 200
    assert max(darkest[10:]) < 50


def test_a_source_that_ends_early_shortens_the_claim(sources: tuple[list[Media], list[Media]], tmp_path: Path) -> None:
    path = sources[0][0].path
    lying = Source("R25", path, duration_s=14.0, fps=Fraction(25))
    plan = QueryPlan("Q1", "full", Fraction(25), (Segment(Footage(lying, 10.0), num_frames=100, is_copy=True),))
    rendered = render_query(plan, folder=tmp_path, short_side_px=288)
    (match,) = true_matches(rendered)
    assert (match.query_end_s, match.ref_end_s) == (2.0, 12.0)
    check(rendered, tmp_path / "Q1.mp4")


def test_a_copy_of_nothing_fails(sources: tuple[list[Media], list[Media]], tmp_path: Path) -> None:
    lying = Source("R25", sources[0][0].path, duration_s=20.0, fps=Fraction(25))
    plan = QueryPlan("Q1", "full", Fraction(25), (Segment(Footage(lying, 15.0), num_frames=100, is_copy=True),))
    with pytest.raises(MediaError, match="shows nothing at 15"):
        render_query(plan, folder=tmp_path, short_side_px=288)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Media], list[Media]]:
    """Four references and three distractors of odd shapes, with something to see."""
    folder = tmp_path_factory.mktemp("videos")
    media = []
    for number, (height, width) in enumerate(
        [(96, 128), (128, 72), (90, 160), (100, 100), (64, 112), (120, 90), (80, 80)]
    ):
        media.append(Media(f"V{number}", folder / f"V{number}.mp4"))
        write_video(media[-1].path, moving_frames(60, height=height, width=width, seed=number), fps=12)
    return media[:4], media[4:]


@pytest.fixture(scope="module")
def synthesized(videos: tuple[list[Media], list[Media]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same twice: in this process and in two others."""
    references, distractors = videos
    outputs = [tmp_path_factory.mktemp("out") for _ in range(2)]
    for num_workers, output in enumerate(outputs, start=1):
        calls: list[None] = []
        plans = synthesize(
            references,
            output,
            distractors=distractors,
            num_copies=9,
            num_plain=2,
            seed=5,
            short_side_px=64,
            num_workers=num_workers,
            advance=lambda calls=calls: calls.append(None),
        )
        assert len(plans) == len(calls) == 11
    return outputs


@pytest.mark.long
def test_the_same_seed_gives_the_same_files_in_any_number_of_processes(synthesized: list[Path]) -> None:
    one, two = ({path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} for out in synthesized)
    assert len(one) == 11 + 2
    assert one == two


def test_queries_are_h264_of_limited_even_size(synthesized: list[Path]) -> None:
    for path in (synthesized[0] / "queries").iterdir():
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert min(stream.width, stream.height) <= 64
            assert stream.width % 2 == stream.height % 2 == 0
            assert sum(1 for _ in container.decode(stream)) == stream.frames


def test_ground_truth_has_the_format_of_the_challenge(synthesized: list[Path]) -> None:
    path = synthesized[0] / "matching_ground_truth.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"]
    for query_id, ref_id, *times in rows[1:]:
        query_start_s, query_end_s, ref_start_s, ref_end_s = map(float, times)
        assert (synthesized[0] / "queries" / f"{query_id}.mp4").is_file()
        assert ref_id in {"V0", "V1", "V2", "V3"}
        assert 0 <= query_start_s < query_end_s
        assert 0 <= ref_start_s < ref_end_s <= 5.0
    truth = read_ground_truth(path)
    assert truth.matches is not None
    assert len(truth.matches) == len(rows) - 1
    assert len({match.query_id for match in truth.matches}) == 9


def test_provenance_tells_every_strength(synthesized: list[Path]) -> None:
    provenance = json.loads((synthesized[0] / "provenance.json").read_text())
    assert provenance["seed"] == 5
    assert len(provenance["queries"]) == 11
    segments = [segment for query in provenance["queries"].values() for segment in query["segments"]]
    edits = [edit for segment in segments for edit in segment["edits"]]
    for edit in edits:
        strengths = {field.name for field in dataclasses.fields(EDITS[edit["name"]])}
        assert edit.keys() == {"name", *strengths}
    assert len({edit["name"] for edit in edits}) >= 9
    assert sum(segment["is_copy"] for segment in segments) == sum(bool(segment["edits"]) for segment in segments) >= 9
