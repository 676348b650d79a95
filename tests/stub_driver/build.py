"""Compiles the stub driver, and builds PyCUDA against it: `python -m tests.stub_driver.build`, a step of `make`.

PyCUDA comes as source and wants a driver to link to. Linked to the stub it takes whatever ``libcuda.so.1`` is loaded
when it is imported: the stub in tests, the driver on a machine that has one. The header comes with PyTorch's packages.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CUDA_INCLUDE = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "include"
_NOT_SUPPORTED = 801
_DECLARED = re.compile(r"\bCUDAAPI\s+(cu\w+)\(")
_RENAMED = re.compile(r"#define cu\w+\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu\w+?)\)?\s*$", re.MULTILINE)


def compile_driver(folder: Path) -> Path:
    """Compile ``libcuda.so.1`` into ``folder``, with a link ``libcuda.so`` beside it.

    What ``driver.c`` does not define answers CUDA_ERROR_NOT_SUPPORTED.
    """
    header = "".join((CUDA_INCLUDE / name).read_text(encoding="utf-8") for name in ("cuda.h", "cudaProfiler.h"))
    names = sorted({*_DECLARED.findall(header), *_RENAMED.findall(header)})
    rest = folder / "rest.c"
    rest.write_text(
        "".join(f"__attribute__((weak)) int {name}(void) {{ return {_NOT_SUPPORTED}; }}\n" for name in names)
    )
    library = folder / "libcuda.so.1"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", f"-I{CUDA_INCLUDE}"]
    command += ["-Wl,-soname,libcuda.so.1", str(HERE / "driver.c"), str(rest), "-o", str(library)]
    subprocess.run(command, check=True)
    (folder / "libcuda.so").symlink_to(library.name)
    return library


def has_pycuda() -> bool:
    """Whether the version that ``constraints.txt`` names is installed."""
    try:
        wanted = f"pycuda=={metadata.version('pycuda')}"
    except metadata.PackageNotFoundError:
        return False
    return wanted in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()


def install_pycuda(folder: Path) -> None:
    """Build the version of PyCUDA that ``constraints.txt`` names, and install it beside this Python."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    constraints = ["--no-build-isolation", "--constraint", str(REPOSITORY / "constraints.txt")]
    subprocess.run(
        [*pip, "download", *constraints, "--no-deps", "--no-binary", "pycuda", "--dest", str(folder), "pycuda"],
        check=True,
    )
    (archive,) = folder.glob("pycuda-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    settings = {
        "CUDA_INC_DIR": [str(CUDA_INCLUDE)],
        "CUDADRV_LIB_DIR": [str(folder)],
        "CUDA_ENABLE_CURAND": False,
        "CXXFLAGS": ["-O0", "-g0"],
    }
    (source / "siteconf.py").write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
    subprocess.run([*pip, "install", *constraints, str(source)], check=True)


if __name__ == "__main__" and not has_pycuda():
    if shutil.which("cc") is None or shutil.which("c++") is None:
        sys.exit(
            "the tests need a C and a C++ compiler (cc, c++) to build PyCUDA: apt install build-essential python3-dev"
        )
    with tempfile.TemporaryDirectory() as name:
        compile_driver(Path(name))
        install_pycuda(Path(name))
