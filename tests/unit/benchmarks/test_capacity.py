"""The page is what the script prints, its counts are what PyTorch counts, and its arithmetic is right by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from benchmarks import capacity
from benchmarks.capacity import MODELS, Estimate, Gpu, Videos, decode_s, inference_s, page
from engine.config import DescriptorArchitecture, load_preset
from tests.conftest import REPOSITORY

GPU = Gpu("round", num_nvdecs=2, peak_tflops=100, dollars_per_hour=1)
QUERIES = Videos(
    "q", True, length_s=10, source_fps=25, width_px=1920, height_px=1080, gated_share=0.75, split_share=0.5
)


def test_the_page_is_what_the_script_prints() -> None:
    written = (REPOSITORY / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert written == page(), "print it again: python -m benchmarks.capacity > docs/capacity.md"


def test_every_architecture_of_the_presets_is_counted() -> None:
    assert MODELS.keys() == {*get_args(DescriptorArchitecture), "clip_vit_l14"}


@pytest.mark.torch
@pytest.mark.parametrize("architecture", MODELS)
def test_the_counts_are_those_of_the_models(architecture: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from engine.models.descriptor import build_descriptor_model
    from engine.models.edit_score import build_frame_features

    is_clip = architecture == "clip_vit_l14"
    size_px = {"swinv2_base_w16_256": 256, "vit_base_patch32_384": 384, "resnet50_gem512": 320}.get(architecture, 224)
    with torch.device("meta"):
        model = build_frame_features() if is_clip else build_descriptor_model(architecture)  # type: ignore[arg-type]
        frame = torch.zeros(1, 3, size_px, size_px)
    with FlopCounterMode(display=False) as counter:
        model.eval()(frame)
    assert counter.get_total_flops() / 1e9 == pytest.approx(MODELS[architecture].gflop, rel=1e-3)


def test_all_frames_are_decoded() -> None:
    # 250 frames of 1080p; two NVDECs at half of 748 frames/s.
    assert decode_s(QUERIES, GPU) == pytest.approx(250 / 748)
    small = Videos("s", True, length_s=10, source_fps=25, width_px=320, height_px=240)
    assert decode_s(small, GPU) == pytest.approx(250 / 748 / 2.25)


def test_of_key_frames_nothing_else_is_decoded() -> None:
    # One every 2 s, at a tenth of 748 frames/s; each goes through the models.
    fewer = replace(QUERIES, only_keyframes=True)
    assert decode_s(fewer, GPU) == pytest.approx(5 / (2 * 74.8))
    preset = load_preset("lite").with_gate(enabled=False)
    assert inference_s(fewer, preset, GPU) == pytest.approx(inference_s(QUERIES, preset, GPU) / 2)


def test_the_gate_of_vsc22_saves_the_ensemble_and_costs_clip() -> None:
    preset = load_preset("vsc22")
    # 10 frames at 100 TFLOPS; half of the queries are split into two scenes.
    ensemble_s = 10 * (3 * 43.94 / 20_000 + 26.54 / 35_000)
    clip_s = 10 * 156.92 / 35_000
    assert inference_s(QUERIES, preset.with_gate(enabled=False), GPU) == pytest.approx(1.5 * ensemble_s)
    assert inference_s(QUERIES, preset, GPU) == pytest.approx(0.25 * 1.5 * ensemble_s + clip_s)


def test_the_gate_of_lite_needs_the_whole_frames_of_every_query() -> None:
    preset = load_preset("lite")
    ensemble_s = 10 * 0.769 / 2_000
    assert inference_s(QUERIES, preset.with_gate(enabled=False), GPU) == pytest.approx(1.5 * ensemble_s)
    assert inference_s(QUERIES, preset.with_gate(enabled=True), GPU) == pytest.approx(1.25 * ensemble_s)


def test_a_reference_passes_no_gate() -> None:
    references = Videos("r", False, length_s=10, source_fps=25, width_px=1920, height_px=1080)
    preset = load_preset("vsc22")
    assert inference_s(references, preset, GPU) == inference_s(references, preset.with_gate(enabled=False), GPU)


def test_the_lower_ceiling_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "NUM_GPUS", 4)
    preset = load_preset("lite")
    estimate = Estimate.of(QUERIES, preset, GPU)
    assert estimate.decoded_per_s == pytest.approx(4 * 748 / 250)
    assert estimate.decoding_binds
    assert not Estimate.of(
        QUERIES, preset, Gpu("slow", num_nvdecs=2, peak_tflops=0.1, dollars_per_hour=1)
    ).decoding_binds
