"""Builds engines from the weights of a preset: ``python build_engines.py`` is ``vsc-engine build``."""

from __future__ import annotations

import sys

from engine.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
