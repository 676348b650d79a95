"""How often faults are tried: once in the test suite, as often as ``FAULTS`` says in ``make faults``."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("FAULTS", "1"))


def rounds(few: int) -> range:
    """The seeds of a test that tries ``few`` faults in the test suite."""
    return range(few * FACTOR)
