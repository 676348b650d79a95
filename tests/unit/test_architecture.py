"""The rules of the house, held by a test: layers, one home for each heavy library, a light `import engine`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import engine
from tests.conftest import REPOSITORY

# Data flows downwards: a room imports from those above it, and nothing from those below. Single files come first.
ROOMS = [
    "version errors storage records files projection gate_placeholder config timing console isolation",
    "store",
    "video",
    "models",
    "runtime",
    "build",
    "describe",
    "search",
    "evaluate",
    "evidence",
    "run",
    "catalog",
    "serve",
    "cli",
]
# Where each heavy library may be imported. `models` and `build` are the rooms of torch and timm.
HOMES = {
    "azure": {"engine.storage.objects"},
    "av": {"engine.video.container", "engine.video.media", "engine.video.pyav", "engine.video.stills"},
    "cv2": {"engine.evidence.geometry", "engine.video.statistics"},
    "fastapi": {"engine.serve.app", "engine.serve.receiving", "engine.serve.telling"},
    "faiss": {"engine.search.faiss_backend"},
    "filelock": {"engine.files"},
    "grpc": {"engine.catalog.milvus_rows"},
    "fsspec": {"engine.storage.objects"},
    "jinja2": {"engine.evidence.report"},
    "lancedb": {"engine.catalog.lance"},
    "matplotlib": {"engine.evaluate.plots"},
    "nvidia": {"engine.video.dali"},
    "onnx": {"engine.build.onnx_graph", "engine.build.float16", "engine.build.turing"},
    "onnxruntime": {"engine.build.onnx_runtime"},
    "openvino": {"engine.runtime.openvino"},
    "prometheus_client": {"engine.serve.metrics"},
    "pyarrow": {
        "engine.catalog.lance",
        "engine.catalog.lance_rows",
        "engine.catalog.tables",
        "engine.store.arrow",
        "engine.store.shards",
    },
    "pymilvus": {"engine.catalog.milvus_rows"},
    "pycuda": {"engine.runtime.cuda"},
    "ray": {"engine.run.ray_actors", "engine.run.ray_connection", "engine.run.ray_executor"},
    "starlette": {"engine.serve.receiving", "engine.serve.telling"},
    "tensorrt": {"engine.runtime.tensorrt_library"},
    "tensorrt_rtx": {"engine.runtime.tensorrt_library"},
    "torch_tensorrt": {"engine.build.torch_tensorrt"},
    "uvicorn": {"engine.serve.server"},
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


ABOUT_ALL = {"test_architecture.py", "test_golden_count.py", "test_gpu_device.py"}
ENGINE = modules("engine")


def room(name: str) -> int:
    """The place of a module's room in `ROOMS`. Raises ``StopIteration`` for a room, or a single file, without one."""
    own = name.split(".")[1]
    return next(place for place, rooms in enumerate(ROOMS) if own in rooms.split())


def test_a_room_imports_nothing_from_the_rooms_below_it() -> None:
    for name, tree in ENGINE.items():
        if name in {"engine", "engine.__main__"}:
            continue
        imported = {module for module, _ in imports(tree) if module.startswith("engine.")}
        below = {module for module in imported if room(module) > room(name)}
        assert not below, f"{name} imports {sorted(below)} from rooms below its own"


def test_no_two_rooms_or_modules_need_each_other() -> None:
    on_import = {
        name: {module for module, at_once in imports(tree) if at_once and module in ENGINE}
        for name, tree in ENGINE.items()
    }
    graph = nx.DiGraph([(name, module) for name, found in on_import.items() for module in found if module != name])
    assert list(nx.simple_cycles(graph)) == []


def test_every_room_says_what_it_does() -> None:
    for path in (REPOSITORY / "engine").iterdir():
        if path.is_dir() and any(path.glob("*.py")):
            docstring = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))
            assert docstring, f"{path.name} does not say what it does"


def test_tests_mirror_the_rooms() -> None:
    for path in sorted((REPOSITORY / "tests" / "unit").rglob("test_*.py")):
        parts = path.relative_to(REPOSITORY / "tests" / "unit").parts
        package = parts[0] if parts[0] in {"training", "benchmarks"} else "engine"
        inside = parts[1:] if package == parts[0] else parts
        source = (REPOSITORY / package).joinpath(*inside[:-1], inside[-1].removeprefix("test_"))
        assert source.is_file() or source.with_suffix("").is_dir() or parts[-1] in ABOUT_ALL, (
            f"{path.name} lies where no source file of this name is: {source}"
        )


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_have_one_home(library: str) -> None:
    users = {name for name, tree in ENGINE.items() for found, _ in imports(tree) if found.split(".")[0] == library}
    assert users == HOMES[library]


def test_torch_stays_in_the_build_rooms() -> None:
    users = {name for name, tree in ENGINE.items() for found, _ in imports(tree) if found.split(".")[0] in BUILD_ONLY}
    assert users
    assert all(name.startswith(("engine.models.", "engine.build.")) for name in users), users


def test_the_engine_never_imports_training_or_benchmarks() -> None:
    found = {module for tree in ENGINE.values() for module, _ in imports(tree)}
    assert not [module for module in found if module.split(".")[0] in {"training", "benchmarks", "tests"}]


def test_import_engine_loads_no_heavy_library() -> None:
    script = "import sys, engine; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {*HOMES, *BUILD_ONLY, "numpy", "pydantic", "typer", "rich", "PIL"}


def test_a_worker_loads_only_what_describing_needs() -> None:
    """Each of these libraries would take tens of MB in every worker."""
    script = (
        "import sys, engine.run.worker, engine.runtime.openvino; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {*HOMES, *BUILD_ONLY} == {"av", "cv2", "filelock", "openvino"}


def test_all_public_names_exist() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(engine.__file__).parent / "py.typed").is_file()
