"""Bad input through the command line: one clear line that says what came and what to do, and no harm to the rest."""

from __future__ import annotations

import csv
import json
import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from engine.records import CandidatePair, Descriptors
from engine.store.challenge_npz import write_npz
from engine.store.store import read_descriptors
from engine.store.tables import write_candidates
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, footage
from tests.videos import write_video


def write_audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        for start in range(0, 48_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def lengthen_header(source: Path, target: Path, *, factor: int) -> None:
    """Copy an MP4 whose movie, track and media headers claim ``factor`` times the real duration."""
    data = bytearray(source.read_bytes())
    for box, offset in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20)):
        position = data.index(box) + len(box) + offset
        (duration,) = struct.unpack_from(">I", data, position)
        struct.pack_into(">I", data, position, duration * factor)
    target.write_bytes(data)


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_video(folder / "good.mp4", footage(1, num_seconds=4), fps=FPS)
    write_video(folder / "good naïve 名前.mp4", footage(2, num_seconds=4), fps=FPS)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 50, encoding="utf-8")
    write_audio_only(folder / "audio_only.mp4")
    write_video(folder / "short.mp4", footage(3, num_seconds=1)[:3], fps=FPS)
    whole = folder.parent / "whole.mp4"
    write_video(whole, footage(4, num_seconds=8), fps=FPS)
    lengthen_header(whole, folder / "lying_header.mp4", factor=50)
    with av.open(str(whole)) as source, av.open(str(folder.parent / "stream.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut = (folder.parent / "stream.ts").read_bytes()
    (folder / "truncated.ts").write_bytes(cut[: len(cut) // 2])
    return folder


def test_bad_videos_are_named_and_cost_the_others_nothing(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    common = ["--engines", tiny_engines, "--role", "reference"]
    result = run_cli("extract", mixed_folder, *common, "--output", tmp_path / "out", expect=3)
    with (tmp_path / "out" / "failures.csv").open(encoding="utf-8") as file:
        failures = {row["video_id"]: row for row in csv.DictReader(file)}
    assert set(failures) == {"empty", "text", "audio_only"}
    for video_id, words in (
        ("empty", "empty"),
        ("text", "cannot read it as a media file"),
        ("audio_only", "no video stream"),
    ):
        assert words in failures[video_id]["reason"], failures[video_id]
        assert failures[video_id]["stage"]
        assert f"failed: {video_id} " in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["num_failures"] == 3

    found = {item.video_id: item for item in read_descriptors(tmp_path / "out")}
    assert set(found) == {"good", "good naïve 名前", "lying_header", "short", "truncated"}
    assert len(found["short"]) == 1
    assert len(found["lying_header"]) == 8
    assert 1 <= len(found["truncated"]) < 8
    run_cli("extract", mixed_folder / "good.mp4", *common, "--output", tmp_path / "alone")
    alone = read_descriptors(tmp_path / "alone")[0]
    np.testing.assert_array_equal(found["good"].descriptors, alone.descriptors)


def test_larger_pictures_than_allowed_fail_with_the_name_of_the_limit(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    limits = ["--role", "reference", "--max-pixels", 1000]
    arguments = ["--engines", tiny_engines, *limits, "--output", tmp_path / "out"]
    result = run_cli("extract", mixed_folder / "good.mp4", *arguments, expect=3)
    assert "pictures of 192x144 pixels, more than --max-pixels 1000" in result.stderr


def test_a_nightly_run_ends_with_0_where_nothing_new_failed(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = ["--engines", tiny_engines, "--role", "reference", "--output", tmp_path / "out"]
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("good.mp4", "empty.mp4", "text.mp4"):
        shutil.copy(mixed_folder / name, folder)
    run_cli("extract", folder, *arguments, expect=3)
    again = run_cli("extract", folder, *arguments)
    assert "failed: " not in again.stderr
    assert "extract: 3 of 3" in again.stderr
    assert "0 described, 1 there already, 0 failed" in again.stderr
    assert "2 files are known to give nothing and were not tried again (--retry-failed does)" in again.stderr
    figures = json.loads(again.stdout.splitlines()[-1])
    assert (figures["num_failures"], figures["num_known_failures"]) == (0, 2)
    with (tmp_path / "out" / "failures.csv").open(encoding="utf-8") as file:
        assert {row["video_id"] for row in csv.DictReader(file)} == {"empty", "text"}
    run_cli("extract", folder, *arguments, "--retry-failed", expect=3)
    shutil.copy(mixed_folder / "good.mp4", folder / "text.mp4")
    result = run_cli("extract", folder / "text.mp4", *arguments, "--prune")
    assert "1 described, 0 there already, 0 failed, 1 dropped" in result.stderr
    assert [item.video_id for item in read_descriptors(tmp_path / "out")] == ["text"]


def test_failed_videos_do_not_stop_an_npz(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = ["--engines", tiny_engines, "--role", "query", "--output", tmp_path / "out.npz"]
    run_cli("extract", mixed_folder / "good.mp4", mixed_folder / "empty.mp4", *arguments, expect=3)
    assert [item.video_id for item in read_descriptors(tmp_path / "out.npz")] == ["good"]
    assert "empty" in (tmp_path / "out_failures.csv").read_text(encoding="utf-8")


def test_unusable_paths(mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    def extract(*paths: Path) -> str:
        arguments = ["--engines", tiny_engines, "--role", "query", "--output", tmp_path / "out"]
        error = run_cli("extract", *paths, *arguments, expect=1).stderr
        assert len(error.strip().splitlines()) == 1
        return error

    assert "no such file" in extract(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    assert "no videos at" in extract(tmp_path / "folder")
    (tmp_path / "same").mkdir()
    shutil.copy(mixed_folder / "good.mp4", tmp_path / "same" / "good.mkv")
    assert "good.mkv" in extract(mixed_folder / "good.mp4", tmp_path / "same")


def test_nothing_describable_is_an_error_not_an_empty_file(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = ["--engines", tiny_engines, "--role", "query", "--output", tmp_path / "out.npz"]
    error = run_cli("extract", mixed_folder / "empty.mp4", *arguments, expect=1).stderr
    assert "none of 1 videos" in error
    assert not (tmp_path / "out.npz").exists()


def test_unusable_engines(mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    def extract(engines: Path) -> str:
        arguments = ["--engines", engines, "--role", "query", "--output", tmp_path / "out"]
        return run_cli("extract", mixed_folder / "good.mp4", *arguments, expect=1).stderr

    assert "vsc-engine build" in extract(tmp_path)
    for_another_backend = shutil.copytree(tiny_engines, tmp_path / "engines")
    manifest = json.loads((for_another_backend / "manifest.json").read_text(encoding="utf-8"))
    manifest["backend"] = "tensorrt"
    (for_another_backend / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    error = extract(for_another_backend)
    assert "NVIDIA driver" in error or "no TensorRT engine" in error  # what is missed first
    assert len(error.splitlines()) == 1


def test_norm_set_and_engines_must_fit_the_run(
    mixed_folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    sides = ["--queries", mixed_folder, "--references", mixed_folder / "good.mp4", "--norm-set", mixed_folder]
    arguments = ["--engines", tiny_engines, "--output", tmp_path / "out"]
    shared = run_cli("run", *sides, *arguments, expect=1).stderr
    assert "1 videos are in the norm set and among the references" in shared
    sides[-1] = mixed_folder / "short.mp4"
    assert (
        "built for the models of preset 'tiny'"
        in run_cli("run", *sides, *arguments, "--preset", "vsc22", expect=1).stderr
    )


def some_descriptors(prefix: str, *, num_dims: int = 8) -> list[Descriptors]:
    generator = np.random.default_rng(len(prefix) + num_dims)
    times = np.stack([np.arange(4), np.arange(1, 5)], axis=1).astype(np.float32)
    return [
        Descriptors(f"{prefix}{index}", times, generator.normal(size=(4, num_dims)).astype(np.float32))
        for index in range(3)
    ]


@pytest.fixture
def sides(tmp_path: Path) -> list[str | Path]:
    write_npz(tmp_path / "q.npz", some_descriptors("Q"))
    write_npz(tmp_path / "r.npz", some_descriptors("R"))
    return ["--queries", tmp_path / "q.npz", "--references", tmp_path / "r.npz"]


def test_unreadable_npz(sides: list[str | Path], run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "q.npz").write_bytes(b"PK\x03\x04 not really")
    error = run_cli("search", *sides, "--output", tmp_path / "c.csv", expect=1).stderr
    assert "q.npz" in error
    assert not (tmp_path / "c.csv").exists()


def test_nan_features(sides: list[str | Path], run_cli: RunCli, tmp_path: Path) -> None:
    with np.load(tmp_path / "q.npz") as arrays:
        content = dict(arrays)
    content["features"][2, 3] = np.nan
    np.savez(tmp_path / "q.npz", **content)
    error = run_cli("search", *sides, "--output", tmp_path / "c.csv", expect=1).stderr
    assert "NaN" in error
    assert "Q0" in error


def test_mismatched_dimensions(sides: list[str | Path], run_cli: RunCli, tmp_path: Path) -> None:
    write_npz(tmp_path / "r.npz", some_descriptors("R", num_dims=9))
    error = run_cli("search", *sides, "--output", tmp_path / "c.csv", expect=1).stderr
    assert "8" in error
    assert "9" in error


def test_candidates_with_unknown_ids_or_columns(sides: list[str | Path], run_cli: RunCli, tmp_path: Path) -> None:
    arguments = [*sides, "--candidates", tmp_path / "c.csv", "--output", tmp_path / "m.csv"]
    write_candidates(tmp_path / "c.csv", [CandidatePair("Q0", "R77", 0.5)])
    assert "R77" in run_cli("localize", *arguments, expect=1).stderr
    (tmp_path / "c.csv").write_text("query,reference,score\nQ0,R0,1\n", encoding="utf-8")
    assert "query_id" in run_cli("localize", *arguments, expect=1).stderr


def test_ground_truth_problems(run_cli: RunCli, tmp_path: Path) -> None:
    write_candidates(tmp_path / "c.csv", [CandidatePair("Q0", "R0", 0.5)])
    truth = tmp_path / "gt.csv"
    arguments = ["--ground-truth", truth, "--candidates", tmp_path / "c.csv"]
    assert "gt.csv" in run_cli("evaluate", *arguments, expect=1).stderr
    truth.write_text("query_id,ref_id,extra\nQ0,R0,1\n", encoding="utf-8")
    assert "extra" in run_cli("evaluate", *arguments, expect=1).stderr
    truth.write_text("query_id,ref_id\nQ0,R0\n", encoding="utf-8")
    assert json.loads(run_cli("evaluate", *arguments).stdout.splitlines()[-1])["uap"] == 1.0
    matches = tmp_path / "m.csv"
    matches.write_text(
        "query_id,ref_id,query_start,query_end,ref_start,ref_end,score\nQ0,R0,0,1,0,1,1\n", encoding="utf-8"
    )
    error = run_cli("evaluate", "--ground-truth", truth, "--matches", matches, expect=1).stderr
    assert "query_start" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract"],
        ["nonsense"],
        ["search", "--queries", "q.npz"],
        ["extract", "x.mp4", "--role", "both", "--output", "y"],
    ],
)
def test_wrong_usage_exits_with_1(arguments: list[str], run_cli: RunCli) -> None:
    assert run_cli(*arguments, expect=1).stderr


def test_a_folder_that_cannot_be_written_is_one_line(sides: list[str | Path], run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = run_cli("search", *sides, "--output", tmp_path / "file" / "c.csv", expect=1).stderr
    assert len(error.splitlines()) == 1
    assert str(tmp_path / "file") in error


def test_a_suffix_that_nothing_is_written_as_is_refused_at_once(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "z.parquet"
    extract = ["extract", catalogue.references, "--role", "reference", "--engines", tiny_engines]
    result = run_cli(*extract, "--output", output, expect=1)
    assert f"vsc-engine: {output} has the suffix '.parquet'; descriptors are written to a store" in result.stderr
    sides = ["--queries", tmp_path / "gone.npz", "--references", tmp_path / "gone.npz"]
    for verb in (["search"], ["localize", "--candidates", tmp_path / "gone.csv"]):
        result = run_cli(*verb, *sides, "--output", tmp_path / "out" / "table.xlsx", expect=1)
        assert "has the suffix '.xlsx'; a table is written as .csv, .jsonl, .parquet" in result.stderr
    evaluate = ["evaluate", "--ground-truth", tmp_path / "gone.csv", "--candidates", tmp_path / "gone.csv"]
    result = run_cli(*evaluate, "--plot", tmp_path / "out" / "curve.jpg", expect=1)
    assert "curve.jpg: the picture is a PNG; give it a name that ends with .png" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "page.html"])
def test_a_folder_is_not_named_as_a_file(catalogue: Catalogue, run_cli: RunCli, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    sides = ["--queries", catalogue.queries, "--references", catalogue.references]
    for command in (["dedup", catalogue.queries], ["run", *sides]):
        assert "a folder of several files is written" in run_cli(*command, "--output", output, expect=1).stderr
    assert not output.exists()
