"""Where the golden data lies, and which of the two sets ran.

The full set of recorded reference behaviour is used where it lies beside the checkout; otherwise the committed part of
it (random and generated content only) under ``tests/golden``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imagenet import write_imagenet_weights
from tests.stub_driver import control

REPOSITORY = Path(__file__).resolve().parent.parent
COMMITTED_GOLDEN = REPOSITORY / "tests" / "golden"
IMAGENET_PRESET = REPOSITORY / "tests" / "imagenet.toml"
STUB_DRIVER = control.loaded()
ON_STUB_DRIVER = (
    "end_to_end/test_device_pipeline.py",
    "unit/runtime/test_cuda.py",
    "unit/runtime/test_device_runner.py",
    "unit/runtime/test_tensorrt.py",
)
collect_ignore = [] if STUB_DRIVER is not None else [*ON_STUB_DRIVER]  # they cannot be imported without a driver
FULL_GOLDEN = REPOSITORY.parent / "shared" / "golden"


def golden_root() -> Path:
    """The folder of golden data that this run uses."""
    chosen = os.environ.get("VSC_GOLDEN")
    if chosen:
        return Path(chosen)
    return FULL_GOLDEN if FULL_GOLDEN.is_dir() else COMMITTED_GOLDEN


@pytest.fixture(scope="session")
def golden() -> Path:
    return golden_root()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A process has one driver: tests on the stub and all others exclude each other.

    ``tests/end_to_end/test_stub_driver.py`` starts the process with the stub.
    """
    others = [item for item in items if (item.get_closest_marker("stub_driver") is None) == (STUB_DRIVER is not None)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture
def stub_driver() -> Iterator[control.StubDriver]:
    """The stub driver; for tests with the mark ``stub_driver``."""
    assert STUB_DRIVER is not None
    STUB_DRIVER.reset()
    yield STUB_DRIVER
    STUB_DRIVER.reset()


def pytest_report_header() -> str:
    return f"golden data: {_describe_golden()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"golden data: {_describe_golden()}")


def _describe_golden() -> str:
    root = golden_root()
    return f"committed part, {root}" if root == COMMITTED_GOLDEN else f"full set, {root}"


@pytest.fixture(scope="session")
def imagenet_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of `IMAGENET_PRESET`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_imagenet_weights(folder / "imagenet.safetensors")
    return folder


@pytest.fixture(scope="session")
def lite_engines(imagenet_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small engines that were exported and bring no PCA, built once for the whole run; tests must not write into it."""
    from engine.build.engines import build_engines
    from engine.config import load_preset

    folder = tmp_path_factory.mktemp("engines") / "lite"
    build_engines(load_preset(IMAGENET_PRESET), folder, checkpoints=imagenet_checkpoints)
    return folder
