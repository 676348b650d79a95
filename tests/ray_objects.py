"""What tests put into actors of Ray; a module of its own, as an actor imports all of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from engine.errors import StoreError


class Counting:
    """Written to files: how often it was made and asked, so that a kill forgets nothing."""

    def __init__(self, folder: Path, greeting: str) -> None:
        self._folder = folder
        self._greeting = greeting
        self._note("made")
        if (folder / "gone").exists():
            raise StoreError("the share is gone")

    def _note(self, what: str) -> None:
        with (self._folder / what).open("a") as file:
            file.write("x")

    def greet(self, name: str, *, times: int = 1) -> str:
        self._note("asked")
        if name == "death" or (name == "once" and len((self._folder / "asked").read_text()) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "bug":
            raise KeyError(name)
        return f"{self._greeting} {name}" * times
