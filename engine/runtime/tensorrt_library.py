"""TensorRT as a library: which flavour is installed, and what it says when it fails. Builds and runs nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, get_args

from engine.errors import BackendUnavailable, EngineError
from engine.runtime.manifest import Flavour

logger = logging.getLogger(__name__)

_EXTRAS = {"tensorrt": "gpu", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass(frozen=True)
class TensorRt:
    """An imported flavour of TensorRT; made by `import_tensorrt`."""

    flavour: Flavour
    module: Any

    @property
    def version(self) -> str:
        """Its version, such as ``1.7.1.116``."""
        return str(self.module.__version__)

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """Those that engines can be built for ahead of time, such as ``8.6``; none for data centres."""
        if self.flavour == "tensorrt":
            return ()
        names = [name[2:] for name in dir(self.module.ComputeCapability) if name.startswith("SM")]
        return tuple(f"{number // 10}.{number % 10}" for number in sorted(map(int, names)))


def import_tensorrt(flavour: Flavour | None = None) -> TensorRt:
    """The flavour asked for, or the one that is installed, that for data centres first.

    Raises ``BackendUnavailable`` if it is not installed.
    """
    reasons = []
    for name in get_args(Flavour) if flavour is None else (flavour,):
        try:
            return TensorRt(name, _import(name))
        except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
            reasons.append(f"{name}: {error}; pip install 'vsc-engine[{_EXTRAS[name]}]'")
    raise BackendUnavailable(f"TensorRT engines need TensorRT ({' or '.join(reasons)})")


def _import(flavour: Flavour) -> Any:
    if flavour == "tensorrt":
        import tensorrt

        return tensorrt
    import tensorrt_rtx

    return tensorrt_rtx


def one_line(text: str) -> str:
    """``text`` without line breaks."""
    return " ".join(text.split())


class ErrorLog:
    """Keeps TensorRT's last error for the one line that people see; all it says goes to the debug log."""

    def __init__(self, trt: Any) -> None:
        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.last = "no reason given"

            def log(self, severity: Any, message: str) -> None:
                logger.debug("TensorRT: %s", message)
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    self.last = message

        self.logger = Logger()

    @property
    def last(self) -> str:
        """The last error, in one line."""
        return one_line(self.logger.last)

    def call(self, make: Any, *, doing: str) -> Any:
        """Call a constructor of TensorRT, which raises ``TypeError`` or gives None where it fails."""
        try:
            made = make(self.logger)
        except TypeError:
            made = None
        if made is None:
            raise EngineError(f"TensorRT does not {doing}: {self.last}")
        return made
