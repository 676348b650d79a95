"""Where the golden data lies, and which of the two sets ran.

The full set of recorded reference behaviour is used where it lies beside the checkout; otherwise the committed part of
it (random and generated content only) under ``tests/golden``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.files import exclusive
from tests.imagenet import write_imagenet_weights
from tests.object_store import ObjectStore, running_store
from tests.stub_driver import control

# Two processes of tests share two cores: threads of tiny models would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
NUM_GOLDEN_FULL, NUM_GOLDEN_COMMITTED = 779, 636
PASSED_ON_GOLDEN: list[str] = []
ONLY_LONG = "not gpu and long"  # what `make test-long` asks for


def golden_root() -> Path:
    """The folder of golden data that this run uses."""
    chosen = os.environ.get("VSC_GOLDEN")
    if chosen:
        return Path(chosen).resolve()
    return FULL_GOLDEN if FULL_GOLDEN.is_dir() else COMMITTED_GOLDEN


def recorded(cases: Iterable[Any]) -> list[Any]:
    """Parameters of a test of recorded behaviour; one that is skipped where the committed part has none of them."""
    found = list(cases)
    if found or golden_root() != COMMITTED_GOLDEN:
        return found
    return [pytest.param(None, marks=pytest.mark.skip(reason="not in the committed part of the golden data"))]


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
    for item in items:
        uses = {"golden_root", "load_golden_model"} & vars(getattr(item, "module", None)).keys()
        if "golden" in getattr(item, "fixturenames", ()) or uses:
            item.add_marker("golden")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and "golden" in report.keywords:
        PASSED_ON_GOLDEN.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI runs everything: fewer tests of recorded behaviour than there are would be a hole that nothing else shows.

    None of them has the mark ``long``.
    """
    is_controller = not hasattr(session.config, "workerinput")
    has_all = is_controller and STUB_DRIVER is None and session.config.option.markexpr != ONLY_LONG
    if os.environ.get("CI") == "true" and has_all and session.exitstatus == 0:
        least = NUM_GOLDEN_COMMITTED if golden_root() == COMMITTED_GOLDEN else NUM_GOLDEN_FULL
        if len(PASSED_ON_GOLDEN) < least:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
    least = NUM_GOLDEN_COMMITTED if golden_root() == COMMITTED_GOLDEN else NUM_GOLDEN_FULL
    terminalreporter.write_line(
        f"golden data: {_describe_golden()}; {len(PASSED_ON_GOLDEN)} tests on it passed (CI asks for {least})"
    )


def _describe_golden() -> str:
    root = golden_root()
    return f"committed part, {root}" if root == COMMITTED_GOLDEN else f"full set, {root}"


@pytest.fixture(scope="session")
def running_object_store() -> Iterator[ObjectStore]:
    with running_store() as store:
        yield store


@pytest.fixture
def object_store(running_object_store: ObjectStore) -> Iterator[ObjectStore]:
    """An S3 server, which fails as ``failures`` says; its bucket keeps what other tests put there."""
    running_object_store.requests.clear()
    yield running_object_store
    running_object_store.failures.clear()


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server."""
    from tests.milvus_servers import running_milvus

    with running_milvus(tmp_path_factory.mktemp("milvus")) as uri:
        yield uri


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Makes a folder of some name once for the whole run, in whichever of its processes asks first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / name
        with exclusive(shared / f"{name}.lock", on_wait=lambda: None):
            if not folder.is_dir():
                fill(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def imagenet_checkpoints(make_once: MakeOnce) -> Path:
    """A folder with the checkpoint of `IMAGENET_PRESET`."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_imagenet_weights(folder / "imagenet.safetensors")

    return make_once("checkpoints", write)


@pytest.fixture(scope="session")
def lite_engines(imagenet_checkpoints: Path, make_once: MakeOnce) -> Path:
    """Small engines that were exported and bring no PCA; tests must not write into them."""
    from engine.build.engines import build_engines
    from engine.config import load_preset

    return make_once(
        "lite", lambda folder: build_engines(load_preset(IMAGENET_PRESET), folder, checkpoints=imagenet_checkpoints)
    )


@pytest.fixture(scope="session")
def tiny_engines(make_once: MakeOnce) -> Path:
    """Engines that bring a PCA and a norm set (`tests.packaged`); tests must not write into them."""
    from engine.build.engines import build_engines
    from tests.packaged import tiny_preset, write_packaged

    def build(folder: Path) -> None:
        build_engines(tiny_preset(), folder, packaged=write_packaged(folder.with_name("tiny_packaged")))

    return make_once("tiny_engines", build)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(names)} is on the PATH")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()
