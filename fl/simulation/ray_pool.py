"""Workers that are Ray actors, on this machine or on the machines of a cluster.

Only this module of `fl` imports Ray, which devices do not install.
"""

import logging
import os
import re
import socket
import time

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from fl.config.parsing import ConfigError
from fl.reproducibility import determinism
from fl.reproducibility.provenance import code_hash
from fl.simulation.pickling import Pieces, unpack
from fl.simulation.worker_pool import WorkerReply
from fl.simulation.workers.chunks import work
from fl.simulation.workers.evaluating import Told

_ANSWER_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""
_CONNECT_SECONDS = 60.0
"""How long the actors of a cluster may take to start and report which code they run."""


class RayPool:
    """A pool of Ray actors, see `fl.simulation.worker_pool.WorkerPool`; the caller closes it.

    A round's request is put into Ray's object store once, and every machine fetches it once. An
    actor that dies, alone or with its machine, is replaced by one on any machine that is left.

    Args:
        address: the address of a running cluster, as `ray.init` takes it. None stands for the
            environment variable `RAY_ADDRESS` or, without it, for a Ray of this machine that ends
            with the pool.
        size: the number of actors; None: one for each core of the cluster.

    Raises:
        ConfigError: there is no cluster at that address, or its machines run other code.
    """

    runtime = "ray"

    def __init__(self, address: str | None = None, size: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own default is 15
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(address)
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._request, self._number = ray.put(None), 0
        self._busy: dict[ray.ObjectRef, int] = {}
        self._dead: set[int] = set()
        self._given = [0.0] * self.size
        """When each actor got its last chunk."""
        self._starting: dict[ray.ObjectRef, int] = {}
        """What an actor answers as soon as it is there."""
        self._actors = [_start(cores=1) for _ in range(self.size)]
        try:
            self._compare_code()
        except BaseException:
            self.close()
            raise

    def broadcast(self, request: Pieces) -> None:
        """Put a request into the object store, and replace the actors that were ended."""
        # Ray stores arrays without another copy, and bytes with one.
        packed = np.frombuffer(b"".join(request), np.uint8)
        self._request = ray.put(packed)  # pyrefly: ignore
        self._number += 1
        for worker in self._dead:
            self._replace(worker)
        self._dead.clear()

    def submit(self, worker: int, chunk: bytes) -> None:
        """Send an idle actor a chunk."""
        replies = self._actors[worker].train.remote(self._number, self._request, chunk)
        self._busy[replies], self._given[worker] = worker, time.monotonic()

    def since(self, worker: int) -> float | None:
        """Return when a busy actor began with its chunk; None while it is still starting."""
        return None if worker in self._starting.values() else self._given[worker]

    def wait(self, timeout: float | None = None) -> WorkerReply | None:
        """Wait until any busy actor is done or dead; one that is dead is replaced."""
        done, _ = ray.wait([*self._busy, *self._starting], timeout=timeout)
        if not done:
            return None
        if (worker := self._starting.pop(done[0], None)) is not None:
            self._given[worker] = time.monotonic()
            return None
        worker = self._busy[done[0]]
        try:
            replies = memoryview(ray.get(done[0]))
        except RayError as error:
            self.end(worker)
            return WorkerReply(worker, reason=str(error).splitlines()[0])
        del self._busy[done[0]]
        return WorkerReply(worker, replies)

    def end(self, worker: int) -> str:
        """End a busy actor and start another in its place; returns how it ended."""
        self._busy = {reply: busy for reply, busy in self._busy.items() if busy != worker}
        ray.kill(self._actors[worker])
        self._replace(worker)
        return "its actor was killed"

    def cancel(self) -> None:
        """End all busy actors; the next broadcast starts others in their places."""
        for worker in self._busy.values():
            ray.kill(self._actors[worker])
            self._dead.add(worker)
        self._busy.clear()

    def _replace(self, worker: int) -> None:
        # It reserves no core, since that of a dead one may have gone with its machine.
        self._actors[worker] = _start(cores=0)
        self._starting = {there: n for there, n in self._starting.items() if n != worker}
        self._starting[self.process(worker)] = worker

    def process(self, worker: int) -> ray.ObjectRef:
        """Return an actor's process id, for `ray.get`."""
        return self._actors[worker].process.remote()

    def close(self) -> None:
        """End the actors, and Ray if this pool started it."""
        for actor in self._actors:
            ray.kill(actor)
        if self._ours:
            ray.shutdown()

    def _compare_code(self) -> None:
        asked: list = [actor.code.remote() for actor in self._actors]
        done, late = ray.wait(asked, num_returns=len(asked), timeout=_CONNECT_SECONDS)
        if late:
            raise ConfigError(
                f"{len(late)} of {self.size} Ray workers did not start in "
                f"{_CONNECT_SECONDS:.0f} s; ask for fewer --workers, the cluster has "
                f"{ray.available_resources().get('CPU', 0):.0f} cores free"
            )
        try:
            others = {code for code in ray.get(done) if code != code_hash()}
        except RayActorError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"a Ray worker can't start: {reason}; install fednf there") from None
        if others:
            raise ConfigError(
                f"Ray workers run other code ({others.pop()[:8]}) than this process "
                f"({code_hash()[:8]}); install the same fednf on all machines"
            )


def _connect(address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if place := re.fullmatch(r"([^/]+):(\d+)", address):
            # Ray itself would try for minutes to reach a cluster that is not there.
            socket.create_connection((place[1], int(place[2])), _ANSWER_SECONDS).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no Ray cluster at {address}: {reason}") from None


class _Worker:
    """An actor: a worker process of Ray's, somewhere in the cluster."""

    def __init__(self) -> None:
        determinism.prepare_process()
        self.number, self.told = 0, Told()

    def code(self) -> str:
        """Return the hash of the code that this actor runs."""
        return code_hash()

    def process(self) -> int:
        """Return the process id."""
        return os.getpid()

    def train(self, number: int, request: np.ndarray, chunk: bytes) -> np.ndarray:
        """Train a chunk, given what was broadcast and the broadcast's number."""
        if number != self.number:  # read once, however many chunks of the round come here
            self.number, self.told = number, unpack(request.data)
        return np.frombuffer(b"".join(work(chunk, self.told)), np.uint8)


def _start(cores: int) -> ActorHandle:
    return ray.remote(num_cpus=cores)(_Worker).remote()  # pyrefly: ignore
