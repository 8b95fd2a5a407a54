"""A connection to a Ray cluster: the room that its nodes have for actors, and questions that they answer."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar, cast

from diffclean import __version__
from diffclean.errors import DiffcleanError, Interrupted, MissingExtraError, UsageError
from diffclean.execution.base import AnyTask

log = logging.getLogger(__name__)

_CONNECT_S = 10
_CHECK_S = 180
_SAY_S = 30
_LOOK_S = 0.5
_SHOWN = 5
_GUIDE = "See docs/scale.md."
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Needs:
    """What one actor occupies.

    Attributes:
        cpus: the number of CPUs, as Ray counts them.
        gpus: the number of GPUs; a fraction if several actors share one.
    """

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UsageError(
                f"`num_gpus` {self.gpus:g} cannot be given to an actor.",
                "Give 0 for none, a part of one such as 0.5, or a whole number.",
            )

    def fit(self, resources: Mapping[str, float]) -> int:
        """How many actors a node with these resources holds."""
        rooms = [resources.get("CPU", 0) / self.cpus]
        if self.gpus:
            rooms.append(resources.get("GPU", 0) / self.gpus)
        return int(min(rooms) + 1e-6)

    def __str__(self) -> str:
        """`1 CPU and 1 GPU`."""
        cpus = f"{self.cpus:g} CPU{'s' * (self.cpus > 1)}"
        return f"{cpus} and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else cpus


@dataclass(frozen=True)
class OnRay:
    """Which cluster is used, and how.

    Attributes:
        address: what `ray.init` takes: "auto" for the cluster that runs on this machine or that RAY_ADDRESS names,
            "local" for one that is started here and ends with the run, or host:port.
        gpus: the number of GPUs of each actor; None stands for 1 if a node of the cluster has a GPU, else 0.
        cpus: the number of CPUs of each actor.
        wait_s: how long to wait for a node with room for an actor, in seconds.
    """

    address: str = "auto"
    gpus: float | None = None
    cpus: int = 1
    wait_s: float = 0


class Cluster:
    """A cluster that this process is connected to.

    Args:
        wanted: which one, and how it is used.

    Attributes:
        needs: what one actor occupies.
    """

    def __init__(self, wanted: OnRay) -> None:
        self.wanted = wanted
        has_gpus = any(node["Resources"].get("GPU", 0) for node in self.nodes())
        gpus = wanted.gpus if wanted.gpus is not None else float(has_gpus)
        self.needs = Needs(wanted.cpus, gpus)
        self._without_room_since: float | None = None
        self._patience_s = wanted.wait_s

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as Ray describes them."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """How many actors the nodes hold that are alive, whether or not others occupy them now."""
        return sum(self.needs.fit(node["Resources"]) for node in self.nodes())

    def is_alive(self, name: str) -> bool:
        """Whether a node is alive, given its id."""
        return any(node["NodeID"] == name for node in self.nodes())

    def address_of(self, name: str) -> str:
        """The address of a node, given its id; "an unknown node" if it is not known any more."""
        import ray

        found = (node for node in ray.nodes() if node["NodeID"] == name)
        return next((node["NodeManagerAddress"] for node in found), "an unknown node")

    def wait_for_room(self) -> int:
        """The number of actors that the nodes hold.

        It may be 0 for `wait_s` seconds, in which an autoscaler may start a node; after that, it is an error.

        Raises:
            DiffcleanError: no node is large enough.
        """
        room, now = self.room(), time.monotonic()
        if room:
            self._without_room_since, self._patience_s = None, max(_SAY_S, self.wanted.wait_s)
            return room
        if self._without_room_since is None:
            self._without_room_since = now
            if self._patience_s:
                log.warning("%s Waiting %.0f s for one.", self._lack(), self._patience_s)
        if now - self._without_room_since >= self._patience_s:
            given = " with GPUs, or give `num_gpus` 0" if self.needs.gpus else ""
            raise DiffcleanError(
                self._lack(),
                f"Start nodes{given}. If an autoscaler starts them on demand, give the seconds to wait: `ray_wait_s` "
                f"600. {_GUIDE}",
            )
        return 0

    def _lack(self) -> str:
        nodes = self.nodes()
        most = [max((node["Resources"].get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")]
        return (
            f"An actor needs {self.needs}, and no node of the Ray cluster has that: of its {len(nodes)} nodes, none "
            f"has more than {most[0]:g} CPUs or {most[1]:g} GPUs."
        )

    def check(self, task: AnyTask) -> None:
        """Ask every node that actors may run on whether it sees everything that the task needs.

        Raises:
            DiffcleanError: some do not; the message names them.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = ray.remote(num_cpus=0, max_retries=0)(_problem)
        asked: dict[Any, str] = {}
        for node in self.nodes():
            if self.needs.fit(node["Resources"]):
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked[ask.options(scheduling_strategy=there).remote(task, __version__)] = node["NodeManagerAddress"]
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_S) if asked else ([], [])
        problems = [(asked[each], DiffcleanError(f"It did not answer in {_CHECK_S} s.", _GUIDE)) for each in silent]
        for each in answered:
            try:
                found = ray.get(each)
            except ray.exceptions.RayTaskError as error:  # diffclean is not there, or it is an older one
                last = str(error).strip().splitlines()[-1]
                found = DiffcleanError(f"diffclean cannot be used there ({last}).", "Install the same on every node.")
            except ray.exceptions.RayError:  # the node was lost while it was asked: it gets no work then
                continue
            if found is not None:
                problems.append((asked[each], found))
        if problems:
            first = "\n".join(f"  {address}: {problem.message}" for address, problem in problems[:_SHOWN])
            more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise DiffcleanError(
                f"{len(problems)} of {len(asked)} nodes cannot work on this run:\n{first}{more}", problems[0][1].hint
            )

    def ask(self, question: Callable[..., Answer], *given: Any, stop: threading.Event | None = None) -> Answer:
        """The answer of a function that runs where an actor could run, once there is room.

        Raises:
            DiffcleanError: whatever `question` raises, or no node is large enough.
            Interrupted: `stop` was set.
        """
        import ray

        remote = ray.remote(num_cpus=self.needs.cpus, num_gpus=self.needs.gpus)(question)
        answer = remote.remote(*given)
        say_at = time.monotonic() + _SAY_S
        while not ray.wait([answer], timeout=_LOOK_S)[0]:
            self.wait_for_room()
            if stop is not None and stop.is_set():
                ray.cancel(answer, force=True)
                raise Interrupted("Stopped while the cluster opened the engine.", "Type the same command again.")
            if time.monotonic() > say_at:
                log.warning("Still waiting for a node of the cluster with %s free.", self.needs)
                say_at = float("inf")
        try:
            return ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise DiffcleanError(
                f"The engine cannot be opened on the cluster: {first_line(error)}", "Type the same command again."
            ) from error


@contextmanager
def connected(wanted: OnRay | None) -> Iterator[Cluster | None]:
    """Connect to a cluster for the duration of the block; None if none is wanted.

    Raises:
        MissingExtraError: ray is not installed.
        DiffcleanError: there is no cluster at the address, or it has no room for an actor.
    """
    if wanted is None:
        yield None
        return
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(wanted.address)
    try:
        cluster = Cluster(wanted)
        if not wanted.wait_s:
            cluster.wait_for_room()
        with redirect_stdout(cast("TextIO", _WithoutRay(sys.stdout))):
            yield cluster
    finally:
        if is_ours:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    how = "Give the address of a cluster that runs (host:port), or start one here: ray start --head. " + _GUIDE
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself tries for a long time
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except OSError as error:
            raise DiffcleanError(f"There is no Ray cluster at {address} ({error.strerror or error}).", how) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _signals_kept():
        try:
            ray.init(address, log_to_driver=False, configure_logging=False)
        except ConnectionError as error:
            raise DiffcleanError(f"There is no Ray cluster at {address}.", how) from error
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            raise DiffcleanError(f"The Ray cluster at {address} cannot be used: {first_line(error)}", how) from error


class _WithoutRay:
    """Standard output without what Ray's own threads print there, such as the state of a node that was lost.

    Standard output is for results. What was lost is said by this executor, in a line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Pass text on; what Ray prints goes to the log at the level debug."""
        if not threading.current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        if text.strip():
            log.debug("Ray says: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our handling of signals, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            with suppress(TypeError):  # a handler that was not installed from Python
                signal.signal(number, handler)


def _problem(task: AnyTask, version: str) -> DiffcleanError | None:
    """What prevents this machine from working on a task; None if nothing does."""
    if version != __version__:
        return DiffcleanError(
            f"It has diffclean {__version__}, and the run was started with {version}.",
            "Install the same on every node.",
        )
    try:
        task.check()
    except DiffcleanError as error:
        return error
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
