"""What a process that trains is set to."""

import gc
import subprocess
import sys
import weakref

import pytest

from fl.reproducibility.determinism import hidden_from_gc

FAULTS_A_STEP = """
import resource, torch
from fl.reproducibility.determinism import prepare_process

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():  # memory for several results at a time, as a pass takes it, all of it given back
    parts = [torch.ones(12 * 2**20) for _ in range(2)]
    del parts

if {settled}:
    prepare_process()
for _ in range(20):  # until the C library's heap has found its form
    step()
before = faults()
step()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_was_used_is_not_asked_for_again():
    pages = 2 * 48 * 2**20 // 4096
    found = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS_A_STEP.format(settled=settled)]))
        for settled in (False, True)
    ]
    assert found[0] > pages / 2
    assert found[1] < pages / 100


class Node:
    """Something that can refer to itself."""


def test_what_was_there_is_hidden_from_the_collector_for_a_while():
    def circle() -> weakref.ref:
        node = Node()
        node.itself = node  # pyrefly: ignore
        return weakref.ref(node)

    gc.collect()
    before = circle()
    with hidden_from_gc():
        within = circle()
        gc.collect()
        assert before() is not None
        assert within() is None
        with hidden_from_gc():
            pass
        assert gc.get_freeze_count()  # that of the outer one
    assert not gc.get_freeze_count()
    gc.collect()
    assert before() is None
