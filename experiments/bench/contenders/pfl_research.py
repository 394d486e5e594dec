"""pfl-research: its FederatedAveraging in its simulated backend, a process a core by torchrun."""

import json
import subprocess
import sys

from experiments.bench.contenders.record import Record
from fl.config import Experiment
from fl.reproducibility.provenance import cores


def run(knobs: Experiment, record: Record) -> None:
    """Start a process a core, and wait for them."""
    path = record.path.with_name("pfl.json")
    path.write_text(json.dumps(knobs.to_flat()))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={cores()}"]
    program = ["-m", "experiments.bench.contenders.pfl_program", str(path), str(record.path)]
    subprocess.run([sys.executable, *torchrun, *program], check=True)
