"""The capacity page: videos per second, hours and dollars on GPUs: `python -m benchmarks.capacity > docs/capacity.md`.

An estimate from counts, not a measurement: each figure below is named, with where it is from. Change one (a price, a
length) and print the page again.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness import command_line
from engine.config import ClipGate, EnsembleGate, Preset, load_preset

NUM_GPUS = 8
NUM_VIDEOS = 1_000_000
SAMPLED_FPS = 1.0
KEYFRAME_S = 2.0
"""Seconds from one key frame to the next."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: NVDEC engines, peak of dense float16 tensor operations, assumed price."""

    name: str
    num_nvdecs: int
    peak_tflops: float
    dollars_per_hour: float


@dataclass(frozen=True)
class Videos:
    """A set of videos by its means. ``gated_share``: what the edit gate stops; ``split_share``: what scenes split.

    ``only_keyframes``: no other frames are decoded, and each is sampled.
    """

    name: str
    is_query: bool
    length_s: float
    source_fps: float
    width_px: int
    height_px: int
    gated_share: float = 0.0
    split_share: float = 0.0
    only_keyframes: bool = False

    @property
    def num_decoded(self) -> float:
        """Frames that are decoded."""
        return self.length_s * (1 / KEYFRAME_S if self.only_keyframes else self.source_fps)

    @property
    def num_sampled(self) -> float:
        """Frames that the models see."""
        return self.length_s * (1 / KEYFRAME_S if self.only_keyframes else SAMPLED_FPS)


@dataclass(frozen=True)
class Model:
    """``gflop`` of one frame (measured, 2 per multiply-add); ``utilisation`` of the peak, assumed and ``published``."""

    gflop: float
    utilisation: float
    published: str


GPUS = (
    Gpu("A100 80 GB", num_nvdecs=5, peak_tflops=312, dollars_per_hour=1.35),
    Gpu("L40S", num_nvdecs=3, peak_tflops=362, dollars_per_hour=0.87),
    Gpu("H100 SXM", num_nvdecs=7, peak_tflops=989, dollars_per_hour=2.25),
)
CATALOGUE = Videos("catalogue", is_query=False, length_s=30, source_fps=30, width_px=1920, height_px=1080)
VSC_QUERIES = Videos(
    "VSC2022 queries", is_query=True, length_s=35, source_fps=30, width_px=640, height_px=360,
    gated_share=0.77, split_share=0.2,
)  # fmt: skip
MODELS = {
    "swinv2_base_w16_256": Model(43.94, 0.20, "23%, FasterTransformer, batch 32"),
    "vit_base_patch32_384": Model(26.54, 0.35, "36% for ViT-B/16 at 224, FasterTransformer, batch 32"),
    "clip_vit_l14": Model(156.92, 0.35, "43% for ViT-L/16 at 224, FasterTransformer, batch 32"),
    "resnet50_gem512": Model(16.684, 0.20, "none at hand; taken as for SwinV2-B"),
    "efficientnet_lite0_gem512": Model(0.769, 0.02, "1.3% for EfficientNet-B0, PyTorch, TF32, batch 256"),
}
REGIONS_OF_SPLIT = 2
NVDEC_1080P_FPS = 748.0
NVDEC_UTILISATION = 0.5
NVDEC_KEYFRAME_UTILISATION = 0.1
LEAST_COUNTED_PX = 1280 * 720
CORE_720P_S_PER_S = 13.0
"""Seconds of 1280x720 H.264 that one CPU core decodes in a second: measured, PyAV, one thread a video."""


def decode_s(videos: Videos, gpu: Gpu) -> float:
    """Seconds of all NVDECs of one GPU for one video: what is decoded of it is decoded once."""
    num_pixels = videos.num_decoded * max(videos.width_px * videos.height_px, LEAST_COUNTED_PX)
    utilisation = NVDEC_KEYFRAME_UTILISATION if videos.only_keyframes else NVDEC_UTILISATION
    return num_pixels / (gpu.num_nvdecs * NVDEC_1080P_FPS * 1920 * 1080 * utilisation)


def inference_s(videos: Videos, preset: Preset, gpu: Gpu) -> float:
    """Seconds of one GPU in the models for one video."""
    peak_gflops = gpu.peak_tflops * 1e3
    ensemble_s = sum(_frame_s(model.architecture, peak_gflops) for model in preset.models)
    passes = 1 + videos.split_share * (REGIONS_OF_SPLIT - 1)
    gate_s = 0.0
    if videos.is_query and preset.gate.mode == "vsc":
        described = 1 - videos.gated_share
        if isinstance(preset.gate, EnsembleGate):
            # The whole frames of every query; of those that are described and split, the regions too.
            passes = 1 + described * videos.split_share * REGIONS_OF_SPLIT
        elif isinstance(preset.gate, ClipGate):
            passes *= described
            gate_s = _frame_s(preset.gate.architecture, peak_gflops)
    return videos.num_sampled * (passes * ensemble_s + gate_s)


def _frame_s(architecture: str, peak_gflops: float) -> float:
    model = MODELS[architecture]
    return model.gflop / (peak_gflops * model.utilisation)


@dataclass(frozen=True)
class Estimate:
    """Videos per second that `NUM_GPUS` GPUs decode, and that their models take; GPUs do not wait for each other."""

    decoded_per_s: float
    inferred_per_s: float

    @classmethod
    def of(cls, videos: Videos, preset: Preset, gpu: Gpu) -> Estimate:
        """For one set of videos, preset and kind of GPU."""
        return cls(NUM_GPUS / decode_s(videos, gpu), NUM_GPUS / inference_s(videos, preset, gpu))

    @property
    def decoding_binds(self) -> bool:
        """Whether decoding is the lower ceiling."""
        return self.decoded_per_s < self.inferred_per_s


Result = tuple[Videos, str, Gpu, Estimate]


def estimates() -> Iterator[Result]:
    """Videos, the preset as used, the kind of GPU, and what is to be expected."""
    for name in ("vsc22", "lite"):
        preset = load_preset(name)
        uses = [(CATALOGUE, name, preset)]
        for gate in (False, True):
            uses.append((VSC_QUERIES, f"{name}, gate {'on' if gate else 'off'}", preset.with_gate(enabled=gate)))
        for videos, preset_name, used in uses:
            for gpu in GPUS:
                yield videos, preset_name, gpu, Estimate.of(videos, used, gpu)
    for videos, suffix in ((CATALOGUE, ""), (VSC_QUERIES, ", gate off")):
        fewer, used = replace(videos, only_keyframes=True), load_preset("lite").with_gate(enabled=False)
        for gpu in GPUS:
            yield fewer, f"lite, key frames{suffix}", gpu, Estimate.of(fewer, used, gpu)


def page() -> str:
    """The whole page as Markdown."""
    results = list(estimates())
    sections = [
        "# Capacity",
        _wrapped(f"""What {NUM_GPUS} GPUs should do, from counts. **Nothing here was run on a GPU.** `python -m
            benchmarks.capacity` prints this page from the constants at the top of `benchmarks/capacity.py`: change a
            price, a length or a utilisation there and print it again."""),
        _wrapped(f"""Videos per second that {NUM_GPUS} GPUs decode, and that their models take; hours and dollars for
            {NUM_VIDEOS:,} videos. The two overlap, so the lower one counts. `catalogue` videos are references: no gate,
            no scenes. `key frames`: with `--sampling keyframes`, one every {KEYFRAME_S:g} s."""),
        _table(
            ["videos", "preset", f"{NUM_GPUS} x", "decoded/s", "models/s", "binds", "hours", "dollars"],
            (_result_row(*result) for result in results),
        ),
        _wrapped(_what_binds(results)),
        "## Assumptions",
        _table(
            ["GPU", "NVDECs", "dense float16 peak", "price of an hour, host included"],
            (
                [gpu.name, f"{gpu.num_nvdecs}", f"{gpu.peak_tflops:g} TFLOPS", f"{gpu.dollars_per_hour:.2f} dollars"]
                for gpu in GPUS
            ),
        ),
        _wrapped("""NVDECs: NVIDIA's Video Encode and Decode Support Matrix; peaks: NVIDIA's data sheets; both read
            second hand. Prices: assumed, from a published comparison of cloud prices of December 2025."""),
        _table(
            ["model", "GFLOP a frame (**measured**)", "share of the peak (assumed)", "published on an A100"],
            ([name, f"{model.gflop:g}", f"{model.utilisation:.0%}", model.published] for name, model in MODELS.items()),
        ),
        _table(["what", "value", "from"], _other_assumptions()),
        _wrapped("""Measured means on a CPU: FLOP by PyTorch's FlopCounterMode (a test counts again), seconds by PyAV.
            Not counted: reading files, resizing and scene statistics on the GPU, the edit-score model (6.4 GFLOP for 35
            frames), search, GPUs that stand idle at the end of a run. Codecs that NVDEC lacks (AV1 on A100 and H100)
            are decoded by CPU cores."""),
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _what_binds(estimated: Sequence[Result]) -> str:
    results = [result for result in estimated if not result[0].only_keyframes]
    num_decoding = sum(estimate.decoding_binds for *_, estimate in results)
    last = GPUS[-1]
    nvdecs_s = CATALOGUE.length_s * NUM_GPUS / decode_s(replace(CATALOGUE, width_px=1280, height_px=720), last)
    faster = LEAST_COUNTED_PX / (VSC_QUERIES.width_px * VSC_QUERIES.height_px)
    gain = decode_s(CATALOGUE, last) / decode_s(replace(CATALOGUE, only_keyframes=True), last)
    num_models = sum(
        videos is VSC_QUERIES and estimate.decoded_per_s * faster > estimate.inferred_per_s
        for videos, _, _, estimate in results
    )
    return f"""Decoding binds in {num_decoding} of {len(results)} rows: one frame a second goes through the models, but
        all {CATALOGUE.source_fps:g} through NVDEC. Where it binds, count NVDECs per dollar, not FLOPS, and the edit
        gate saves nothing. Key frames alone raise it {gain:.0f} times, if NVDEC reaches the share assumed below. What
        helps, too: proxies of smaller pictures or lower frame rates, which platforms often keep, and CPU cores: one
        decodes {CORE_720P_S_PER_S:g} s of 720p H.264 a second (measured), so 100 of them would add
        {100 * CORE_720P_S_PER_S:,.0f} to the {nvdecs_s:,.0f} of {NUM_GPUS} {last.name} (the engine does not share one
        codec between the two yet). Whether NVDEC gets faster below 720p is not known here; if it did, in proportion,
        the {VSC_QUERIES.name} would decode {faster:g} times as fast, and the models would bind in {num_models} of their
        rows."""


def _result_row(videos: Videos, preset_name: str, gpu: Gpu, estimate: Estimate) -> list[str]:
    hours = NUM_VIDEOS / min(estimate.decoded_per_s, estimate.inferred_per_s) / 3600
    return [
        videos.name,
        preset_name,
        gpu.name,
        *(f"{value:.0f}" for value in (estimate.decoded_per_s, estimate.inferred_per_s)),
        "decoding" if estimate.decoding_binds else "models",
        f"{hours:.1f}",
        f"{hours * NUM_GPUS * gpu.dollars_per_hour:.0f}",
    ]


def _other_assumptions() -> list[list[str]]:
    shapes = [
        [
            f"{videos.name}: mean",
            f"{videos.length_s:g} s, {videos.width_px}x{videos.height_px}, {videos.source_fps:g} fps",
        ]
        for videos in (CATALOGUE, VSC_QUERIES)
    ]
    return [
        [*shapes[0], "assumed"],
        [*shapes[1], "published (the upper end of its sizes and frame rates)"],
        ["sampled", f"{SAMPLED_FPS:g} fps", "design"],
        ["queries that the gate stops", f"{VSC_QUERIES.gated_share:.0%}", "published: those without a copy"],
        [f"queries split into {REGIONS_OF_SPLIT} scenes", f"{VSC_QUERIES.split_share:.0%}", "assumed"],
        ["frames decoded", "all, once", "design: sampled ones stay on the device"],
        ["... with key frames", f"one every {KEYFRAME_S:g} s, each sampled", "assumed: streaming segments of 2 s"],
        [
            "one NVDEC, 1080p H.264",
            f"{NVDEC_1080P_FPS:.0f} frames/s",
            "NVIDIA's NVDEC Application Note for Ampere, second hand; taken for all",
        ],
        ["... of which reached", f"{NVDEC_UTILISATION:.0%}", "assumed: short files, starts of sessions"],
        [
            "... with key frames",
            f"{NVDEC_KEYFRAME_UTILISATION:.0%}",
            "assumed: a seek before each, more bits a picture, no overlap within a file",
        ],
        ["pictures below 1280x720", "cost as much as 1280x720", "assumed"],
    ]


def _table(title: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (title, ["---"] * len(title), *rows))


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), width=120)


def main() -> None:
    """Print the capacity page as Markdown.

    Example: python -m benchmarks.capacity > docs/capacity.md
    """
    print(page(), end="")


app = command_line(main)

if __name__ == "__main__":
    app()
