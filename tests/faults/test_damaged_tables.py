"""Damaged tables, manifests and arrays give one line that names the file, or are read; never anything else."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.config import load_preset, preset_names
from engine.errors import EngineError
from engine.projection import fit_pca, load_pca, save_pca
from engine.records import CandidatePair, Descriptors, Match
from engine.run.protocol import _read_json
from engine.runtime.manifest import parse_manifest, write_manifest
from engine.store.challenge_npz import read_npz, write_npz
from engine.store.norm_set import load_norm_set, save_norm_set
from engine.store.shards import Fingerprint, read_index, read_shard
from engine.store.store import StoreWriter, read_descriptors
from engine.store.tables import read_candidates, read_ground_truth, read_matches, write_candidates, write_matches
from tests.conftest import REPOSITORY
from tests.faults.conftest import rounds
from tests.faults.mutations import mutated
from tests.manifests import make_manifest

TIMES = np.stack([np.arange(4), np.arange(1, 5)], axis=1).astype(np.float32)
IDENTITY = {"fps": 1.0}


def videos() -> list[Descriptors]:
    generator = np.random.default_rng(0)
    return [
        Descriptors(f"Q{index}", TIMES, generator.standard_normal((4, 8)).astype(np.float32), edit_score=0.5)
        for index in range(3)
    ]


def write_store(folder: Path, *, finish: bool) -> None:
    with StoreWriter(folder, identity=IDENTITY) as writer:
        for video in videos():
            writer.add(video, Fingerprint(1, 2))
        if finish:
            writer.finish()


def go_on(folder: Path) -> None:
    """Finish a copy of a store."""
    copy = shutil.copytree(folder, folder.with_name("copy"), dirs_exist_ok=True)
    try:
        with StoreWriter(copy, identity=IDENTITY) as writer:
            writer.finish()
    finally:
        shutil.rmtree(copy)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(1)
    write_candidates(folder / "candidates.csv", [CandidatePair("Q0", "R1", 0.5), CandidatePair("Q1", "R1", 0.25)])
    write_matches(folder / "matches.csv", [Match("Q0", "R1", 0, 1, 2, 3, score=0.5)])
    write_npz(folder / "descriptors.npz", videos())
    save_norm_set(generator.uniform(-1, 1, (4, 8)).astype(np.float32), folder / "norm_set.npz")
    save_pca(fit_pca(generator.standard_normal((20, 8)).astype(np.float32), num_components=4), folder / "pca.npz")
    write_store(folder / "store", finish=True)
    write_store(folder / "unfinished", finish=False)
    (folder / "engines").mkdir()
    write_manifest(make_manifest(folder / "engines"), folder / "engines")
    (folder / "run.json").write_text(json.dumps({"engines": {"a": 1}, "preset": {"b": [1, 2]}}))
    shutil.copy(REPOSITORY / "engine" / "presets" / f"{preset_names()[0]}.toml", folder / "preset.toml")
    return folder


READERS: dict[str, list[Callable[[Path], object]]] = {
    "candidates.csv": [read_candidates, read_ground_truth],
    "matches.csv": [read_matches, read_ground_truth],
    "descriptors.npz": [read_npz],
    "norm_set.npz": [load_norm_set],
    "pca.npz": [load_pca],
    "store/manifest.json": [lambda path: read_descriptors(path.parent), lambda path: go_on(path.parent)],
    "store/shard-00000.parquet": [
        lambda path: read_descriptors(path.parent),
        lambda path: go_on(path.parent),
        read_shard,
        read_index,
    ],
    "unfinished/journal": [lambda path: go_on(path.parent)],
    "unfinished/manifest.json": [lambda path: go_on(path.parent)],
    "engines/manifest.json": [parse_manifest],
    "run.json": [_read_json],
    "preset.toml": [load_preset],
}


@pytest.mark.parametrize("name", READERS)
def test_one_line_or_nothing(root: Path, name: str) -> None:
    path = root / name
    content = path.read_bytes()
    outcomes: Counter[str] = Counter()
    try:
        for seed in rounds(60):
            path.write_bytes(mutated(content, seed))
            for read in READERS[name]:
                try:
                    read(path)
                except EngineError as error:
                    assert len(str(error).splitlines()) == 1, (seed, str(error))  # noqa: PT017 - most are read
                    outcomes["refused"] += 1
                else:
                    outcomes["read"] += 1
    finally:
        path.write_bytes(content)
    print(f"faults: {name}: {dict(outcomes)}")  # noqa: T201
    assert outcomes["refused"] or name == "unfinished/journal"


@pytest.mark.parametrize("seed", rounds(3))
def test_a_store_never_gives_other_descriptors(tmp_path: Path, seed: int) -> None:
    """Whatever is flipped, and in whichever of its files."""
    write_store(tmp_path, finish=True)
    generator = random.Random(seed)  # noqa: S311
    path = generator.choice([tmp_path / "shard-00000.parquet", tmp_path / "manifest.json"])
    content = bytearray(path.read_bytes())
    for _ in range(20):
        damaged = bytearray(content)
        damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_descriptors(tmp_path)
        except EngineError:
            continue
        for one, other in zip(found, videos(), strict=True):
            assert one.video_id == other.video_id
            np.testing.assert_array_equal(one.descriptors, other.descriptors)
            np.testing.assert_array_equal(one.timestamps, other.timestamps)


@pytest.mark.parametrize("shape", ["(99999999999, 8)", "(9999999999999999999999, 8)", "(-1, 8)", "((1, 8)"])
def test_an_array_that_claims_an_impossible_shape(tmp_path: Path, shape: str) -> None:
    """With checksums that are right: as another program, not a disk, would get it wrong."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    write_npz(tmp_path / "a.npz", videos())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    members["features.npy"] = magic + header + members["features.npy"][128:]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    with pytest.raises(EngineError, match=r"a\.npz is damaged") as refused:
        read_npz(tmp_path / "a.npz")
    assert len(str(refused.value).splitlines()) == 1


def test_an_encrypted_archive(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", videos())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 1)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(EngineError, match=r"a\.npz is damaged: .* is encrypted"):
        read_npz(tmp_path / "a.npz")
