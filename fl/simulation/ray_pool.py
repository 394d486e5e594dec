"""Workers as Ray actors, on this machine or on those of a cluster.

A module of its own, since Ray is no part of what a device installs.
"""

import logging
import os
import pickle
import re
import socket

import numpy as np
import ray
from flwr.app import RecordDict
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from fl.config.parsing import ConfigError
from fl.reproducibility import determinism
from fl.reproducibility.provenance import code_hash
from fl.simulation.pickling import work
from fl.simulation.worker_pool import Heard

_ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer."""
_CONNECT_SECONDS = 60.0
"""How long the actors of a cluster may take to say which code they run."""


class Actors:
    """A team of Ray actors, see `fl.simulation.worker_pool.Team`; to be closed.

    A round's request is put into Ray's object store once, and every machine fetches it once. An
    actor that dies, alone or with its machine, is replaced wherever there is a machine.

    Args:
        address: a running cluster's, as `ray.init` takes it; None: that of the environment variable
            `RAY_ADDRESS` or, without it, a Ray of this machine that ends with the team.
        size: how many; None: one for each core that the cluster has.

    Raises:
        ConfigError: there is no cluster at that address, or its machines run other code.
    """

    runtime = "ray"

    def __init__(self, address: str | None = None, size: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 else: behind everything that runs
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it warns without
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(address)
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._request, self._number = ray.put(None), 0
        self._busy: dict[ray.ObjectRef, int] = {}
        self._dead: set[int] = set()
        self._actors = [_start(cores=1) for _ in range(self.size)]
        try:
            self._compare_code()
        except BaseException:
            self.close()
            raise

    def tell(self, request: bytes) -> None:
        """Put a request where all machines find it."""
        self._request = ray.put(np.frombuffer(request, np.uint8))  # pyrefly: ignore
        self._number += 1
        for worker in self._dead:
            self._actors[worker] = _start(cores=0)
        self._dead.clear()

    def give(self, worker: int, parcel: bytes) -> None:
        """Hand a parcel over."""
        answers = self._actors[worker].answer.remote(self._number, self._request, parcel)
        self._busy[answers] = worker

    def hear(self) -> Heard:
        """Wait for an actor that is done; one that is dead is replaced."""
        (done, *_), _ = ray.wait(list(self._busy))
        worker = self._busy.pop(done)
        try:
            return Heard(worker, memoryview(ray.get(done)))
        except RayError as error:
            ray.kill(self._actors[worker])
            # Asks for no core of its own: that of the dead may have gone with its machine.
            self._actors[worker] = _start(cores=0)
            return Heard(worker, why=str(error).splitlines()[0])

    def drop(self) -> None:
        """End whoever still works; the next request finds another in its place."""
        for worker in self._busy.values():
            ray.kill(self._actors[worker])
            self._dead.add(worker)
        self._busy.clear()

    def process(self, worker: int) -> ray.ObjectRef:
        """Return an actor's process id, for `ray.get`."""
        return self._actors[worker].process.remote()

    def close(self) -> None:
        """End the actors, and Ray if it is ours."""
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
            # Ray itself would try for minutes.
            socket.create_connection((place[1], int(place[2])), _ANSWER_SECONDS).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no Ray cluster at {address}: {reason}") from None


class _Answering:
    """An actor that answers parcels."""

    def __init__(self) -> None:
        determinism.settle()
        self.number, self.request = 0, RecordDict()

    def code(self) -> str:
        """Return the hash of the code that it runs."""
        return code_hash()

    def process(self) -> int:
        """Return its process id."""
        return os.getpid()

    def answer(self, number: int, request: np.ndarray, parcel: bytes) -> np.ndarray:
        """Answer a parcel, given its request and the number of that."""
        if number != self.number:
            self.number, self.request = number, pickle.loads(request.data)
        return np.frombuffer(b"".join(work(parcel, self.request)), np.uint8)


def _start(cores: int) -> ActorHandle:
    return ray.remote(num_cpus=cores)(_Answering).remote()  # pyrefly: ignore
