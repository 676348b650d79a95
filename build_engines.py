"""Builds engines: the same as ``vsc-engine build``, for use from a checkout."""

from __future__ import annotations

import sys

from engine.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
