"""The rules of the house, held by a test: layers, one home for each heavy library, a light `import engine`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from tests.conftest import REPOSITORY

# Data flows downwards: a module may import only from modules above it.
LAYERS = [
    "version",
    "errors",
    "machine",
    "atomic",
    "npz",
    "records",
    "device_array",
    "timing",
    "config",
    "media",
    "sampling",
    "frames.statistics",
    "frames",
    "scenes",
    "projection",
    "norm_set",
    "runtime",
    "runtime.manifest",
    "runtime.fit",
    "runtime.shipped",
    "runtime.check",
    "runtime.graph",
    "runtime.operators",
    "runtime.half",
    "runtime.openvino",
    "runtime.onnx_runtime",
    "runtime.precision",
    "runtime.tensorrt_build",
    "runtime.cuda",
    "runtime.device_buffers",
    "runtime.device_runner",
    "runtime.tensorrt",
    "models",
    "runtime.artefacts",
    "runtime.sources",
    "runtime.compiling",
    "runtime.openvino_engines",
    "runtime.tensorrt_engines",
    "runtime.build",
    "runtime.cache",
    "runtime.batching",
    "near_duplicates",
    "gated",
    "describe",
    "tables",
    "challenge_npz",
    "shards",
    "store",
    "nearest",
    "index",
    "readmit",
    "score_norm",
    "candidates",
    "localize",
    "evaluate",
    "plots",
    "figures",
    "pipeline",
    "jobs",
    "worker",
    "supervisor",
    "placement",
    "extraction",
    "protocol",
    "console",
    "cli",
]
# Where each heavy library may be imported. `models` is the build-time room of torch and timm.
HOMES = {
    "av": {"engine.video.media", "engine.video.pyav"},
    "cv2": {"engine.video.statistics"},
    "faiss": {"engine.search.faiss_backend"},
    "matplotlib": {"engine.evaluate.plots"},
    "nvidia": {"engine.video.dali"},
    "onnx": {"engine.build.onnx_graph", "engine.build.float16", "engine.build.operators"},
    "onnxruntime": {"engine.build.onnx_runtime"},
    "openvino": {"engine.runtime.openvino"},
    "pyarrow": {"engine.store.shards"},
    "pycuda": {"engine.runtime.cuda"},
    "tensorrt": {"engine.build.tensorrt_builder"},
    "tensorrt_rtx": {"engine.build.tensorrt_builder"},
    "torch_tensorrt": {"engine.build.torch_tensorrt"},
}
BUILD_ONLY = {"torch", "timm", "safetensors", "skimage", "torchvision"}


def modules(package: str) -> dict[str, ast.Module]:
    found = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> list[tuple[str, bool]]:
    """(imported module, whether it happens on import of the file)."""
    top_level = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top_level) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, id(node) in top_level))
            found += [(f"{node.module}.{alias.name}", id(node) in top_level) for alias in node.names]
    return found


ENGINE = modules("engine")


def layer(name: str) -> int | None:
    short = name.removeprefix("engine.").removeprefix("engine")
    while short and short not in LAYERS:
        short = short.rpartition(".")[0]
    return LAYERS.index(short) if short else None


@pytest.mark.parametrize("name", ENGINE)
def test_a_module_imports_only_from_layers_above_it(name: str) -> None:
    own = layer(name)
    for imported, on_import in imports(ENGINE[name]):
        if on_import and imported.startswith("engine.") and own is not None:
            above = layer(imported)
            assert above is None or above <= own, f"{name} imports {imported} from a layer below it"


@pytest.mark.parametrize("name", ENGINE)
def test_every_module_has_its_layer(name: str) -> None:
    assert name in {"engine", "engine.__main__"} or layer(name) is not None


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_have_one_home(library: str) -> None:
    users = {name for name, tree in ENGINE.items() for found, _ in imports(tree) if found.split(".")[0] == library}
    assert users == HOMES[library]


def test_torch_stays_in_the_build_rooms() -> None:
    users = {name for name, tree in ENGINE.items() for found, _ in imports(tree) if found.split(".")[0] in BUILD_ONLY}
    assert users
    assert all(name.startswith("engine.models.") for name in users), users


def test_the_engine_never_imports_training_or_benchmarks() -> None:
    found = {module for tree in ENGINE.values() for module, _ in imports(tree)}
    assert not [module for module in found if module.split(".")[0] in {"training", "benchmarks", "tests"}]


def test_import_engine_loads_no_heavy_library() -> None:
    script = "import sys, engine; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {*HOMES, *BUILD_ONLY, "numpy", "pydantic", "typer", "rich", "PIL"}


def test_all_public_names_exist() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(engine.__file__).parent / "py.typed").is_file()
