"""Each fault on each runtime: the round ends, and who is refused, and why, is known beforehand.

With FEDNF_FULL=1 every fault is tried on every runtime, on longer runs, and `-s` shows a row of
docs/measurements/faults.md for each.
"""

import gc
import os
import re
import sys
import warnings

import pytest

from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run
from tests.fl.client.conftest import SHORT

FULL = bool(os.environ.get("FEDNF_FULL"))
LONG = {"network.width": 8, "partition.clients": 10, "sampling.clients": 10}
LONG |= {"rounds": 3, "network.kind": "cnn", "network.stem-stride": 2, "client.batch-size": 16}
KNOBS = {**SHORT, **({**LONG, "network.depth": "auto", "client.lr": 0.1} if FULL else {})}
REFUSED = {
    "exception": "ScheduledFault: faults.kind=exception",
    "killed": r"WorkerDied: faults.kind=killed|2 workers died while they trained it",
    "hang": "deadline of .* s passed",
    "lost": "faults: its reply was lost",
    "nan": r"conv\.weight holds values that are not finite",
    "inf": r"conv\.weight holds values that are not finite",
    "shape": r"conv\.weight is float32 \(1, \d+, \d+, 3, 3\), expected",
    "missing": r"tensors \['.*conv\.weight'\] are missing or unknown",
}
"""Faults of which a client's reply is refused, and what the reason looks like."""
HARMLESS = {"late": "", "duplicate": "a reply to no request of this round"}
"""Faults that change no model, and the reason why something is refused besides the reply."""
LET_IN = ("huge", "sign", "statistics", "labels")
"""Faults that no check of a single reply can see."""
KINDS = (*REFUSED, *HARMLESS, *LET_IN)
WORKERS = KINDS if FULL else ("exception", "hang", "killed", "nan", "duplicate", "sign")
RAY = KINDS if FULL else ("killed", "labels")
SLOWER = () if FULL else ("hang",)
"""A worker process ends a client that hangs, inline too."""
QUICK = ("exception", "nan", "duplicate", "sign")
CASES = [
    *(pytest.param("inline", kind) for kind in QUICK),
    *(
        pytest.param("inline", k, marks=pytest.mark.slow)
        for k in KINDS
        if k not in (*QUICK, *SLOWER)
    ),
    *(pytest.param("processes", kind, marks=pytest.mark.slow) for kind in WORKERS),
    *(pytest.param("ray", kind, marks=pytest.mark.slow) for kind in RAY),
]


@pytest.fixture(scope="module")
def pools():
    """Give the runtimes' pools of two workers; Ray's is started once, if anybody asks for it."""
    started = {}

    def pool(runtime: str):
        if runtime == "ray" and not started:
            pytest.importorskip("ray")
            from fl.simulation.ray_pool import RayPool

            started["ray"] = RayPool(size=2)
        return started.get("ray") if runtime == "ray" else None

    yield pool
    with warnings.catch_warnings():  # Ray leaves processes running
        warnings.simplefilter("ignore", ResourceWarning)
        for one in started.values():
            one.close()
        started.clear()
        gc.collect()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, pools, few):
    """Run a fault on a runtime, once; returns the result, the rounds and the clients' accounts."""
    done = {}

    def outcome(runtime: str, kind: str) -> tuple[dict, list[dict], list[dict]]:
        if (runtime, kind) not in done:
            flat = {"faults.kind": kind, "faults.share": 0.5 if not FULL else 0.3}
            flat = {**flat, "faults.seconds": 0.5 if FULL else 0.0} if kind != "none" else {}
            flat |= {"round.deadline": 5.0 if FULL else 2.0} if kind == "hang" else {}
            flat |= {} if FULL else {"data.name": few}
            journal = Journal(tmp_path_factory.mktemp(kind))
            workers = 2 if runtime == "processes" else 1
            how = {"pool": pools("ray")} if runtime == "ray" else {"workers": workers}
            result = run(Experiment.from_flat({**KNOBS, **flat}), journal, **how)
            done[runtime, kind] = result, journal.rounds()[1:], journal.clients()
        return done[runtime, kind]

    return outcome


@pytest.mark.usefixtures("rays_leftovers")
@pytest.mark.parametrize(("runtime", "kind"), CASES)
def test_a_fault_costs_the_faulty_and_nobody_else(outcomes, runtime, kind):
    result, lines, accounts = outcomes(runtime, kind)
    calm, sha256 = outcomes("inline", "none")[0], result["model_sha256"]
    assert len(lines) == KNOBS["rounds"]
    for line in lines:
        faulty = {one["partition"] for one in line["faulty"]}
        assert faulty
        assert {one["fault"] for one in line["faulty"]} == {kind}
        refused = {one["partition"] for one in line["refused"]}
        assert refused == (set() if kind in (*LET_IN, "late") else faulty)
        reason = REFUSED.get(kind, HARMLESS.get(kind, ""))
        assert all(re.search(reason, one["reason"]) for one in line["refused"])
        told = {a["partition"]: a.get("fault") for a in accounts if a["round"] == line["round"]}
        expected = set() if kind in REFUSED else faulty
        assert {client for client, fault in told.items() if fault} == expected
        assert len(told) == line["replied"] == line["asked"] - (len(faulty) - len(expected))
    if kind in REFUSED:  # as if the faulty had not been there
        assert sha256 == outcomes("inline", "lost")[0]["model_sha256"] != calm["model_sha256"]
    elif kind in HARMLESS:
        assert sha256 == calm["model_sha256"]
    else:
        assert sha256 == outcomes("inline", kind)[0]["model_sha256"] != calm["model_sha256"]
    if FULL:
        why = {re.sub(r"\s+", " ", one["reason"]) for line in lines for one in line["refused"]}
        accuracy = f"{result['final_accuracy']:.1%} | {calm['final_accuracy']:.1%}"
        row = f"| `{kind}` | {runtime} | {result['refused']} | {'; '.join(why)} | {accuracy} |\n"
        sys.stdout.write(row)
