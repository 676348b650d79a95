"""Images per second of one engine by batch size: `python -m benchmarks.bench_runner --engines DIR [--name ensemble]`.

Runs where the engines were built for. First the results must be those of ONNX Runtime on the CPU from the exported
graph; no time is reported otherwise. The ceiling is what the same executor reaches on plain matrix products, over the
FLOP of one image. Frames lie in host memory; two threads call the runner, as decoding threads do.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.flops import count_flop
from benchmarks.harness import EnginesOption, OutputOption, command_line, report
from engine.build.onnx_runtime import run_graph
from engine.records import FloatArray, Frames
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import Flavour, Manifest, RowProfile
from engine.runtime.runner import Runner, TensorSpec

MIN_COSINE = 0.999
NUM_COMPARED = 16
NUM_THREADS = 2
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
GEMM_LAYERS = 8
GEMM_SIZES = {"openvino": 1024, "tensorrt": 8192}


@dataclass(frozen=True)
class Rate:
    """One batch size. ``ceiling_share``: of the images per second that plain matrix products would allow."""

    batch_size: int
    images_per_s: float
    ceiling_share: float


def pictures(num: int, spec: TensorSpec, *, seed: int = 0) -> NDArray[np.generic]:
    """Smooth colors with a little noise for an input of frames, normal numbers for any other."""
    generator = np.random.default_rng(seed)
    shape = tuple(num if size is None else size for size in spec.shape)
    if spec.dtype != "uint8":
        return generator.standard_normal(shape).astype(spec.dtype)
    coarse: Frames = generator.integers(0, 256, (num, 7, 7, 3), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(each).resize((shape[2], shape[1]), Image.Resampling.BICUBIC)) for each in coarse
    ]
    return np.clip(np.stack(smooth) + generator.normal(0, 6, shape), 0, 255).astype(np.uint8)


def worst_cosine(one: FloatArray, other: FloatArray) -> float:
    """The smallest cosine between rows of the same number."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.min(np.sum(one * other, axis=1) / lengths))


def compare(runner: Runner, graph: Path) -> dict[str, float]:
    """The worst cosine of each output with ONNX Runtime's. Raises ``AssertionError`` below `MIN_COSINE`."""
    tensors = {spec.name: pictures(NUM_COMPARED, spec) for spec in runner.inputs}
    found, [expected] = runner.run(tensors), run_graph(graph, [tensors])
    cosines = {name: worst_cosine(np.atleast_2d(found[name]), np.atleast_2d(rows)) for name, rows in expected.items()}
    if not min(cosines.values()) >= MIN_COSINE:
        raise AssertionError(f"cosines with the CPU are {cosines}, below {MIN_COSINE}; no time is reported")
    return cosines


def calls_per_s(call: Callable[[], object], *, seconds: float) -> float:
    """Calls per second of `NUM_THREADS` threads together, after one call that does not count."""
    call()
    end_s = (start_s := time.perf_counter()) + seconds

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() < end_s:
            call()
            count += 1
        return count

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        count = sum(pool.map(repeat, range(NUM_THREADS)))
    return count / (time.perf_counter() - start_s)


def write_gemms(path: Path, *, size: int, use_float16: bool) -> None:
    """A graph of `GEMM_LAYERS` products of ``(n, size)`` with a square matrix; its output is the mean of each row."""
    dtype, code = (np.float16, TensorProto.FLOAT16) if use_float16 else (np.float32, TensorProto.FLOAT)
    # A permutation with signs: keeps lengths, is exact in float16 and cheap to make.
    generator = np.random.default_rng(0)
    weight = np.zeros((size, size), dtype)
    weight[np.arange(size), generator.permutation(size)] = generator.choice([-1, 1], size)
    nodes = [helper.make_node("Cast", ["bytes"], ["x0"], to=code)]
    nodes += [helper.make_node("MatMul", [f"x{layer}", "w"], [f"x{layer + 1}"]) for layer in range(GEMM_LAYERS)]
    nodes += [helper.make_node("Cast", [f"x{GEMM_LAYERS}"], ["y"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["y", "axes"], ["mean"], keepdims=1)]
    inputs = [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["rows", size])]
    outputs = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["rows", 1])]
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([1], np.int64), "axes")]
    graph = helper.make_graph(nodes, "gemms", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def gemm_gflops(manifest: Manifest, name: str, *, seconds: float) -> float:
    """10^9 operations per second on matrix products, by the executor and in the precision of an engine."""
    facts = manifest.engines[name].tensorrt
    size = GEMM_SIZES[manifest.backend]
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "gemms.onnx"
        write_gemms(graph, size=size, use_float16=facts is not None and "fp16" in facts.precisions.values())
        with _open_graph(graph, flavour=facts.flavour if facts is not None else None, num_rows=size) as runner:
            tensors = {"bytes": np.random.default_rng(1).integers(0, 2, (size, size), dtype=np.uint8)}
            rate = calls_per_s(partial(runner.run, tensors), seconds=seconds)
    return rate * GEMM_LAYERS * 2 * size**3 / 1e9


def _open_graph(graph: Path, *, flavour: Flavour | None, num_rows: int) -> Runner:
    if flavour is None:
        from engine.runtime.openvino import OpenVinoRunner, compile_to_ir

        compile_to_ir(graph, graph.with_suffix(".xml"))
        return OpenVinoRunner(graph.with_suffix(".xml"))
    from engine.build.onnx_graph import io_specs
    from engine.build.tensorrt_builder import build_engine
    from engine.runtime.cuda import Gpu, devices
    from engine.runtime.device_runner import DeviceRunner
    from engine.runtime.tensorrt import TensorRtExecution
    from engine.runtime.tensorrt_library import import_tensorrt

    tensorrt, device = import_tensorrt(flavour), devices()[0]
    profile = RowProfile(min_rows=num_rows, opt_rows=num_rows, max_rows=num_rows)
    targets = [device.capability] if flavour == "tensorrt_rtx" else []
    path, gpu = graph.with_suffix(".engine"), Gpu(device)
    build_engine(tensorrt, graph, path, profile=profile, compute_capabilities=targets)
    inputs, outputs = io_specs(graph)
    return DeviceRunner(
        lambda: TensorRtExecution(path, tensorrt=tensorrt, inputs=inputs, gpu=gpu),
        gpu=gpu,
        name="gemms",
        inputs=inputs,
        outputs=outputs,
        profile=profile,
    )


def open_for(engines: EnginesDirectory, name: str, *, batch_size: int) -> Runner:
    """A runner of an engine that computes ``batch_size`` rows at once."""
    if engines.manifest.backend != "tensorrt":
        return engines.open_runner(name)
    from engine.runtime.tensorrt import open_tensorrt_runner

    return open_tensorrt_runner(engines, name, batch_size=batch_size)


def measure(
    engines: EnginesDirectory, name: str, *, batch_sizes: Sequence[int], ceiling: float, seconds: float
) -> list[Rate]:
    """Images per second for each batch size; ``ceiling`` is in images per second, too."""
    rates = []
    for batch_size in batch_sizes:
        with open_for(engines, name, batch_size=batch_size) as runner:
            tensors = {spec.name: pictures(batch_size, spec) for spec in runner.inputs}
            images_per_s = batch_size * calls_per_s(partial(runner.run, tensors), seconds=seconds)
        rates.append(Rate(batch_size, images_per_s, images_per_s / ceiling))
    return rates


def main(
    engines: EnginesOption,
    name: Annotated[str, typer.Option(help="Engine to measure: ensemble or edit_features.")] = "ensemble",
    batch_sizes: Annotated[
        list[int] | None, typer.Option(help="Images in one call; may be repeated; default: powers of two, 1 to 32.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure each batch size.")] = 5.0,
    output: OutputOption = None,
) -> None:
    """Compare an engine with ONNX Runtime on the CPU, then report images per second of each batch size.

    Example: python -m benchmarks.bench_runner --engines engines/ --batch-sizes 1 --batch-sizes 32
    """
    directory = EnginesDirectory.open(engines)
    manifest = directory.manifest
    graph = directory.path(manifest.graphs[name].files[0])
    sizes = batch_sizes or BATCH_SIZES
    load = os.getloadavg()[0]
    with open_for(directory, name, batch_size=max(sizes)) as runner:
        cosines = compare(runner, graph)
    gflop = count_flop(graph) / 1e9
    gflops = gemm_gflops(manifest, name, seconds=seconds)
    ceiling = gflops / gflop
    rates = measure(directory, name, batch_sizes=sizes, ceiling=ceiling, seconds=seconds)
    lines = [
        f"preset {manifest.preset.name}, {name}, {manifest.backend}; worst cosine with ONNX Runtime on the CPU: "
        + ", ".join(f"{key} {value:.7f}" for key, value in cosines.items()),
        f"{gflop:.3f} GFLOP an image; matrix products run at {gflops:.0f} GFLOP/s: ceiling {ceiling:.0f} images/s",
        f"load average before: {load:.1f} on {os.cpu_count()} cores",
        f"{'batch':>5}{'images/s':>12}{'of the ceiling':>16}",
        *(f"{rate.batch_size:>5}{rate.images_per_s:>12.1f}{rate.ceiling_share:>16.1%}" for rate in rates),
    ]
    figures = {
        "preset": manifest.preset.name,
        "engine": name,
        "backend": manifest.backend,
        "worst_cosines": cosines,
        "gflop_per_image": gflop,
        "gemm_gflops": gflops,
        "load_average_before": load,
        "rates": [asdict(rate) for rate in rates],
    }
    report("bench_runner", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
