"""The stub driver in this process: what machine it pretends to be, and what was asked of it. See ``driver.c``."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "VSC_STUB_DRIVER_LIBRARY"
"""The compiled stub, in the environment of a process whose tests run on it."""

MIB = 1 << 20


class StubDriver:
    """Loads the library before anybody asks for ``libcuda.so.1``: from then on it is the driver of this process."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.stub_count.restype = ctypes.c_longlong
        self.reset()

    def reset(self) -> None:
        """One device of compute capability 8.6 with 1 GiB, which works at once."""
        self.devices([((8, 6), 1024 * MIB)])
        self.configure(init=0, version=13000, lazy=0)

    def devices(self, devices: Sequence[tuple[tuple[int, int], int]]) -> None:
        """Compute capability and bytes of memory of each device."""
        listing = ",".join(f"{major}.{minor}:{num_bytes}" for (major, minor), num_bytes in devices)
        self._library.stub_configure(f"devices={listing}".encode())

    def configure(self, **values: int) -> None:
        """``init``: what cuInit answers. ``version``: of CUDA, 13000 is 13.0. ``lazy``: 1 puts all work off."""
        text = " ".join(f"{name}={value}" for name, value in values.items())
        self._library.stub_configure(text.encode())

    def count(self, name: str) -> int:
        """A number that the driver keeps, since the last change of settings; live allocations since ever."""
        value: int = self._library.stub_count(name.encode())
        assert value >= 0, name
        return value


def loaded() -> StubDriver | None:
    """The stub that this process was started for, if it was."""
    library = os.environ.get(VARIABLE)
    return StubDriver(Path(library)) if library else None
