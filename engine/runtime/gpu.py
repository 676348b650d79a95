"""The compute capability of this machine's GPU, asked from the driver itself. Imports no GPU library."""

from __future__ import annotations

import ctypes

from engine.errors import BackendUnavailable

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def compute_capability(device: int = 0) -> str:
    """Such as ``8.9``. Raises ``BackendUnavailable`` without a driver or such a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendUnavailable(
            "no NVIDIA driver (libcuda.so.1) on this machine: TensorRT for data centres builds for the GPU that is "
            "there; build ahead of time with --flavour tensorrt_rtx"
        ) from error
    values = [ctypes.c_int(), ctypes.c_int()]
    status = driver.cuInit(0)
    for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True):
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if status:
        raise BackendUnavailable(f"the NVIDIA driver answers with error {status} when asked for GPU {device}")
    return f"{values[0].value}.{values[1].value}"
