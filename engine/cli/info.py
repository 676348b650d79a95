"""``vsc-engine info``."""

from __future__ import annotations

from engine.version import __version__


def info() -> None:
    """Say what this machine can run, and why the rest cannot.

    Example: vsc-engine info
    """
    from engine.run.machine import capabilities, describe_machine

    print(f"vsc-engine {__version__}, {describe_machine()}")
    for part in capabilities():
        print(f"{'yes' if part.available else 'no ':4} {part.name}: {part.detail}")
