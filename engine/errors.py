"""The errors a caller can meet. Every message says what came, what was expected and what to do."""


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
