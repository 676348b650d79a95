"""The errors a caller can meet. Every message says what came, what was expected and what to do."""

import errno
import os

DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""The numbers of an ``OSError`` of a disk, or a share of it, that has no room."""


class EngineError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(EngineError):
    """A usage, configuration or input-file error that the caller can mend: nothing was computed."""


class MediaError(EngineError):
    """One video cannot be used. Other videos are not concerned."""


class BackendUnavailable(EngineError):  # noqa: N818 - the established name for this condition
    """A library or device that was asked for is not present; the message names what to install."""


class StoreError(EngineError):
    """Stored descriptors, candidates or matches cannot be read, or do not fit what they are used with."""


class RemoteError(EngineError, OSError):
    """An object or a URL cannot be read or written, for a reason that may be gone at another time."""


class RemoteMissingError(RemoteError, FileNotFoundError):
    """There is no such object."""


def not_written(error: OSError, place: object) -> OSError:
    """The error of a place that cannot be written, in whose text it says so, why, and what to do."""
    number = error.errno or 0
    advice = "make room there or choose another place" if number in DISK_FULL else "choose another place"
    return OSError(number, f"cannot be written: {os.strerror(number)}; {advice}", str(place))


def line_of(error: OSError) -> str:
    """What to tell people of an error of the operating system, in one line: the path first, no number."""
    place = error.filename2 or error.filename
    if error.errno in DISK_FULL:
        error = not_written(error, "")
        place = place or "standard output"  # whatever else is written names its path
    reason = error.strerror or str(error)
    return reason if place is None else f"{os.fsdecode(place)}: {reason}"
