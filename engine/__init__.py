"""vsc-engine: video files to copy-detection descriptors, and which pairs are copies."""

from engine.version import __version__

__all__ = ["__version__"]
