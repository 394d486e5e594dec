"""A question, and the runs that answer it: `fednf study study.py` does them and reports."""

from pathlib import Path

import fl

BASE = fl.Experiment.from_toml(Path(__file__).with_name("experiment.toml"))

STUDY = fl.Study(
    name="width",
    question="Does a wider network help more when clients hold different classes?",
    experiments=fl.grid(
        BASE,
        [{"network.options.width": width} for width in (4, 16)],
        [{"partition.kind": "iid"}, {"partition.kind": "dirichlet", "partition.alpha": 0.3}],
    ),
)
