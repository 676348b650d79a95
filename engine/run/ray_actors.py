"""Objects that live in actors of a Ray cluster, spread over its nodes, and are called from here.

An actor that ends, or whose node does, is made anew on any other, which Ray does only if it is asked (``max_restarts``
is 0), and then the call is repeated once: calls only read. An actor reserves no cores: it waits most of the time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ray
from ray import exceptions
from threadpoolctl import threadpool_limits

from engine.errors import EngineError
from engine.run.ray_connection import connect, last_line
from engine.version import __version__

_NEW_ACTOR_TIMEOUT_S = 300.0
_CALLS_AT_ONCE = 8
_PAUSE_S = 0.5

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RayActors:
    """A cluster at ``address``, as `engine.run.ray_connection.connect` takes it, which raises where none answers."""

    def __init__(self, address: str) -> None:
        connect(address)
        self._address = address

    def num_nodes(self) -> int:
        """The nodes that are there now."""
        return sum(node["Alive"] for node in ray.nodes())

    def share(self, value: T) -> T:
        """A stand-in for ``value`` as an argument of `host` and `RayActor.call`: it is sent to each node once."""
        found: T = ray.put(value)
        return found

    def host(
        self, make: Callable[..., T], *args: Any, what: str, num_actors: int, timeout_s: float | None = None
    ) -> RayActor[T]:
        """An actor with the object that ``make(*args)`` gives; ``what`` names it in errors.

        ``num_actors``: with how many, itself included, it shares the cores of the cluster. ``timeout_s``: how long a
        call may take; that of a node that is lost comes to an end without it.
        """
        cores = [int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]]
        per_node = -(-num_actors // len(cores))
        num_threads = max(1, min(cores) // per_node)
        what = f"{what} on the Ray cluster {self._address}"
        return RayActor(make, args, what=what, num_threads=num_threads, timeout_s=timeout_s)


class RayActor(Generic[T]):
    """An object in an actor, which is made when it is first called. Several threads may call at once.

    ``num_threads``: for matrix products there. ``timeout_s``: as in `RayActors.host`. The actor ends when nothing here
    speaks of it any more, and with this process.
    """

    def __init__(
        self, make: Callable[..., T], args: tuple[Any, ...], *, what: str, num_threads: int, timeout_s: float | None
    ) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._args = args
        self._handle = (
            ray.remote(_Host)
            .options(
                num_cpus=0,
                max_concurrency=_CALLS_AT_ONCE,
                max_restarts=-1,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(make, num_threads, __version__)
        )

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """What the method gives, and raises if it is an ``EngineError``; all else that goes wrong is one, too."""
        try:
            try:
                return self._get(method, args, options)
            except exceptions.ActorUnavailableError as error:
                logger.warning("%s was lost (%s); it is made anew", self._what, _why(error))
                self._wait_until_made_anew()
                return self._get(method, args, options)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EngineError):
                raise error.cause from None
            raise EngineError(f"{self._what} failed: {last_line(error)}") from error
        except exceptions.GetTimeoutError as error:
            raise EngineError(
                f"{self._what} did not answer in {self._timeout_s} s; `ray status` shows which nodes are there"
            ) from error
        except exceptions.ActorDiedError as error:  # one that can be made anew is unavailable
            raise EngineError(f"{self._what} cannot be made: {last_line(error)}") from error
        except exceptions.RayError as error:
            raise EngineError(f"{self._what} was lost, and lost again when it was made anew: {_why(error)}") from error

    def _get(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        call = self._handle.call.remote(method, len(self._args), *self._args, *args, **options)
        return ray.get(call, timeout=self._timeout_s)

    def _wait_until_made_anew(self) -> None:
        """Ray takes some seconds to notice that a node is gone, and until then every call fails at once."""
        end_s = time.monotonic() + _NEW_ACTOR_TIMEOUT_S
        is_there = False
        while not is_there:
            try:
                is_there = ray.get(self._handle.is_there.remote(), timeout=_NEW_ACTOR_TIMEOUT_S)
            except exceptions.ActorUnavailableError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(_PAUSE_S)


class _Host:
    """Makes the object when it is first asked, so that an error in making it is one of that call.

    What it is made of comes with every call: Ray may have dropped the arguments of an actor that is to be made anew.
    """

    def __init__(self, make: Callable[..., Any], num_threads: int, version: str) -> None:
        self._make = make
        self._num_threads = num_threads
        self._version = version
        self._made: Any = None
        self._lock = threading.Lock()

    def is_there(self) -> bool:
        return True

    def call(self, method: str, num_own: int, /, *args: Any, **options: Any) -> Any:
        with self._lock:
            if self._made is None:
                if self._version != __version__:
                    raise EngineError(
                        f"the node {ray.util.get_node_ip_address()} has vsc-engine {__version__}, the command is of "
                        f"{self._version}; install the same version on all nodes"
                    )
                self._made = self._make(*args[:num_own])
                threadpool_limits(self._num_threads)  # Ray gives an actor that reserves no cores one thread
        return getattr(self._made, method)(*args[num_own:], **options)


def _why(error: exceptions.RayError) -> str:
    """The first sentence of an error of Ray."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(". ")[0] if lines else type(error).__name__
