"""Whether this machine has a GPU, asked from the driver itself. As a script it needs nothing installed."""

from __future__ import annotations

import ctypes
import sys


def why_no_gpu() -> str | None:
    """None where the driver lists a GPU, else what is missing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) on this machine"
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver answers with error {status}"
    return None if count.value else "the NVIDIA driver lists no GPU (is CUDA_VISIBLE_DEVICES empty?)"


if __name__ == "__main__":
    reason = why_no_gpu()
    sys.exit(reason and f"the tests in tests/gpu need an NVIDIA GPU, and they do not skip: {reason}")
