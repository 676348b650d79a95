"""What every runner promises, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.runtime.runner import Runner, TensorSpec
from tests import graphs
from tests.conftest import STUB_DRIVER

OpenRunner = Callable[[Path], Runner]


def openvino_runner(onnx_path: Path) -> Runner:
    if not onnx_path.with_suffix(".xml").exists():
        compile_to_ir(onnx_path, onnx_path.with_suffix(".xml"))
    return OpenVinoRunner(onnx_path.with_suffix(".xml"), num_threads=1)


def on_stub_driver(*, lazy: int, is_capturable: bool) -> Any:
    """The runner for GPUs, with a driver that works at once or puts off what it can."""

    def opener(onnx_path: Path) -> Runner:
        from tests.host_execution import HostExecution, device_runner

        assert STUB_DRIVER is not None
        STUB_DRIVER.configure(lazy=lazy)
        return device_runner(HostExecution(onnx_path, is_capturable=is_capturable))

    return pytest.param(opener, marks=pytest.mark.stub_driver)


@pytest.fixture(
    params=[
        openvino_runner,
        on_stub_driver(lazy=0, is_capturable=True),
        on_stub_driver(lazy=1, is_capturable=True),
        on_stub_driver(lazy=1, is_capturable=False),
    ],
    ids=["openvino", "gpu-at-once", "gpu-lazy", "gpu-lazy-uncaptured"],
)
def open_runner(request: pytest.FixtureRequest) -> OpenRunner:
    opener: OpenRunner = request.param
    return opener


@pytest.fixture(scope="module")
def graph_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs, and beside them what each backend makes of them once."""
    folder = tmp_path_factory.mktemp("graphs")
    graphs.write_ensemble(folder / "ensemble.onnx")
    graphs.write_score(folder / "score.onnx")
    return folder


@pytest.fixture
def ensemble(open_runner: OpenRunner, graph_files: Path) -> Runner:
    return open_runner(graph_files / "ensemble.onnx")


@pytest.fixture
def score(open_runner: OpenRunner, graph_files: Path) -> Runner:
    return open_runner(graph_files / "score.onnx")


def test_specs_are_known_before_entry(ensemble: Runner, score: Runner) -> None:
    assert set(ensemble.inputs) == {
        TensorSpec("frames_4", "uint8", (None, 4, 4, 3)),
        TensorSpec("frames_8", "uint8", (None, 8, 8, 3)),
    }
    assert ensemble.outputs == (TensorSpec("embedding", "float32", (None, 24)),)
    assert score.inputs == (TensorSpec("features", "float32", (None, 6)),)
    assert score.outputs == (TensorSpec("score", "float32", (1,)),)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 33])
def test_computes_the_graph_at_any_number_of_rows(ensemble: Runner, num_rows: int) -> None:
    frames = graphs.frames(num_rows)
    with ensemble:
        result = ensemble.run(frames)
    assert list(result) == ["embedding"]
    assert result["embedding"].dtype == np.float32
    np.testing.assert_allclose(result["embedding"], graphs.ensemble(frames), atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
def test_an_output_without_rows_keeps_its_shape(score: Runner, num_rows: int) -> None:
    features = np.random.default_rng(0).standard_normal((num_rows, 6)).astype(np.float32)
    with score:
        result = score.run({"features": features})["score"]
    assert result.shape == (1,)
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-features.mean(dtype=np.float64))), atol=1e-6)


def test_the_bits_of_a_row_depend_neither_on_other_rows_nor_on_their_number(ensemble: Runner) -> None:
    frames = graphs.frames(8)
    order = np.random.default_rng(1).permutation(8)
    with ensemble:
        together = ensemble.run(frames)["embedding"]
        for size in range(1, 9):
            parts = [_rows(frames, slice(first, first + size)) for first in range(0, 8, size)]
            apart = np.concatenate([ensemble.run(part)["embedding"] for part in parts])
            np.testing.assert_array_equal(apart, together)
        np.testing.assert_array_equal(ensemble.run(_rows(frames, order))["embedding"], together[order])


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3, 1), (4, 4), (1, 9, 5)])
def test_several_parts_are_as_one(ensemble: Runner, sizes: tuple[int, ...]) -> None:
    frames = graphs.frames(sum(sizes))
    bounds = np.cumsum((0, *sizes))
    parts = [_rows(frames, slice(first, last)) for first, last in pairwise(bounds)]
    with ensemble:
        np.testing.assert_array_equal(ensemble.run(*parts)["embedding"], ensemble.run(frames)["embedding"])


def test_every_part_is_checked(ensemble: Runner) -> None:
    with ensemble, pytest.raises(ConfigError, match=r"expected inputs .* got \[\]"):
        ensemble.run(graphs.frames(2), {})


def test_results_belong_to_the_caller(ensemble: Runner) -> None:
    with ensemble:
        first = ensemble.run(graphs.frames(2, seed=1))["embedding"]
        kept = first.copy()
        first[0] += 1
        ensemble.run(graphs.frames(2, seed=2))
    np.testing.assert_array_equal(first[1], kept[1])
    np.testing.assert_array_equal(first[0], kept[0] + 1)


def test_inputs_may_be_views_and_read_only_and_are_left_alone(ensemble: Runner) -> None:
    frames = graphs.frames(6)
    views = {name: array[::2] for name, array in frames.items()}
    before = {name: array.copy() for name, array in frames.items()}
    for array in frames.values():
        array.flags.writeable = False
    with ensemble:
        result = ensemble.run(views)["embedding"]
    np.testing.assert_allclose(result, graphs.ensemble(views), atol=1e-4, rtol=0)
    assert all((frames[name] == before[name]).all() for name in frames)


def test_threads_get_their_own_results(ensemble: Runner) -> None:
    def one_call(seed: int) -> NDArray[Any]:
        return ensemble.run(graphs.frames(1 + seed % 5, seed=seed))["embedding"]

    with ensemble, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one_call, range(64)))
    for seed, result in enumerate(results):
        expected = graphs.ensemble(graphs.frames(1 + seed % 5, seed=seed))
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)


def test_can_be_entered_again(ensemble: Runner) -> None:
    frames = graphs.frames(2)
    with ensemble:
        first = ensemble.run(frames)["embedding"]
    with ensemble:
        np.testing.assert_array_equal(ensemble.run(frames)["embedding"], first)


def test_run_outside_of_the_context_fails(ensemble: Runner) -> None:
    with pytest.raises(RuntimeError, match="outside of the runner's context"):
        ensemble.run(graphs.frames(1))
    with ensemble:
        pass
    with pytest.raises(RuntimeError, match="outside of the runner's context"):
        ensemble.run(graphs.frames(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames_8": None}, r"expected inputs \['frames_4', 'frames_8'\], got \['frames_4'\]"),
        ({"frames_9": np.zeros((2, 9, 9, 3), np.uint8)}, r"expected inputs .* got .*'frames_9'"),
        ({"frames_8": np.zeros((2, 8, 8, 3), np.float32)}, r"'frames_8': expected uint8 .* got float32 \(2, 8, 8, 3\)"),
        ({"frames_8": np.zeros((2, 3, 8, 8), np.uint8)}, r"expected uint8 \(n, 8, 8, 3\), got uint8 \(2, 3, 8, 8\)"),
        ({"frames_8": np.zeros((8, 8, 3), np.uint8)}, r"expected uint8 \(n, 8, 8, 3\), got uint8 \(8, 8, 3\)"),
        ({"frames_8": np.zeros((3, 8, 8, 3), np.uint8)}, r"same number of rows.*\{'frames_4': 2, 'frames_8': 3\}"),
    ],
)
def test_other_inputs_than_the_graph_takes_fail(
    ensemble: Runner, change: dict[str, NDArray[Any] | None], message: str
) -> None:
    tensors = {name: array for name, array in {**graphs.frames(2), **change}.items() if array is not None}
    with ensemble, pytest.raises(ConfigError, match=message):
        ensemble.run(tensors)


def test_no_rows_fail(ensemble: Runner) -> None:
    with ensemble, pytest.raises(ConfigError, match="1 or more"):
        ensemble.run(_rows(graphs.frames(2), slice(0, 0)))


def test_a_refused_call_does_no_harm_to_the_next(ensemble: Runner) -> None:
    frames = graphs.frames(2)
    with ensemble:
        with pytest.raises(ConfigError):
            ensemble.run({})
        np.testing.assert_allclose(ensemble.run(frames)["embedding"], graphs.ensemble(frames), atol=1e-4, rtol=0)


def _rows(frames: dict[str, NDArray[np.uint8]], rows: Any) -> dict[str, NDArray[np.uint8]]:
    return {name: array[rows] for name, array in frames.items()}
