"""What a process that trains is set to."""

import subprocess
import sys

import pytest

FAULTS_A_STEP = """
import resource, torch
from fl.process import settle

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():  # what a pass does: memory for several results at a time, all of it given back
    parts = [torch.ones(2**22) for _ in range(4)]
    del parts

if {settled}:
    settle()
for _ in range(6):  # until the C library's heap has found its form
    step()
before = faults()
step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_was_used_is_not_asked_for_again():
    pages = 4 * 2**24 // 4096
    found = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS_A_STEP.format(settled=settled)]))
        for settled in (False, True)
    ]
    assert found[0] > pages / 2
    assert found[1] < pages / 100
