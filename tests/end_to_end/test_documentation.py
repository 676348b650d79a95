"""The site is built without a warning and holds the public API; what that says of itself is complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import engine
from engine import errors
from tests.conftest import REPOSITORY, MakeOnce

ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}
ARRAYS = re.compile(r"\b(FloatArray|Frames|NDArray)\b")


def documented() -> list[str]:
    """What the pages of the API name."""
    pages = sorted((REPOSITORY / "docs" / "api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]


def resolved(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(module), last)


def members(owner: ModuleType | type) -> Iterator[tuple[str, Any]]:
    """Public functions and classes that are defined in a module or class, the names with what they belong to."""
    for name, value in vars(owner).items():
        function = getattr(value, "__func__", value)
        function = value.fget if isinstance(value, property) else inspect.unwrap(function)
        home = getattr(owner, "__module__", owner.__name__)
        is_own = getattr(function, "__module__", None) == home
        if name.startswith("_") or not is_own or not (inspect.isfunction(function) or inspect.isclass(function)):
            continue
        yield f"{function.__module__}.{function.__qualname__}", function
        if inspect.isclass(function):
            yield from members(function)


def public() -> dict[str, Any]:
    found = {}
    for name in documented():
        value = resolved(name)
        if not isinstance(value, ModuleType):
            found[name] = value
        if isinstance(value, ModuleType | type):
            found |= dict(members(value))
    return found


PUBLIC = public()


@pytest.fixture(scope="module")
def site(make_once: MakeOnce) -> Path:
    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
        quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        built = subprocess.run(command, cwd=REPOSITORY, env=quiet, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr

    return make_once("site", build)


def test_the_site_holds_the_public_api_and_needs_no_network(site: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    ids = {found for page in pages for found in re.findall(r'<h\d id="([^"]+)"', page)}
    for name in engine.__all__:
        value = getattr(engine, name)
        if name != "__version__":
            assert f"{value.__module__}.{name}" in ids
    loaded = {
        url
        for page in pages
        for url in re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', page)
    }
    assert loaded
    assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))]


def test_everything_public_has_a_docstring() -> None:
    assert len(PUBLIC) > 150
    assert [name for name, value in PUBLIC.items() if not inspect.getdoc(value)] == []


def described(name: str) -> str:
    """The docstring of a function and of the class it belongs to."""
    owner = PUBLIC.get(name.rpartition(".")[0])
    return f"{inspect.getdoc(PUBLIC[name])}\n{inspect.getdoc(owner) or ''}"


FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def test_a_function_that_raises_an_error_of_ours_says_so() -> None:
    silent = []
    for name, function in FUNCTIONS.items():
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        raised = {
            node.exc.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
        }
        silent += [f"{name}: {error}" for error in raised & ERRORS if f"``{error}``" not in described(name)]
    assert silent == []


def test_a_function_of_arrays_says_their_shape() -> None:
    silent = [
        name
        for name, function in FUNCTIONS.items()
        if ARRAYS.search(" ".join(map(str, inspect.get_annotations(function).values())))
        and not re.search(r"\([A-Z0-9][^()]*,[^()]*\)", described(name))
    ]
    assert silent == []
