"""Whether this machine has a GPU, asked from the driver itself. As a script it needs nothing installed."""

from __future__ import annotations

import ctypes
import sys


def num_gpus() -> int:
    """How many the driver lists, at least one. Raises ``OSError`` that says what is missing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise OSError("no NVIDIA driver (libcuda.so.1) on this machine") from error
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        raise OSError(f"the NVIDIA driver answers with error {status}")
    if count.value == 0:
        raise OSError("the NVIDIA driver lists no GPU (is CUDA_VISIBLE_DEVICES empty?)")
    return count.value


def why_no_gpu() -> str | None:
    """None where there is a GPU, else what is missing."""
    try:
        num_gpus()
    except OSError as error:
        return str(error)
    return None


if __name__ == "__main__":
    reason = why_no_gpu()
    sys.exit(reason and f"the tests in tests/gpu need an NVIDIA GPU, and they do not skip: {reason}")
