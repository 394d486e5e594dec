"""Tables that papers published, asked again: each a study that has their numbers beside ours."""

from collections.abc import Callable

from experiments.studies.tables.anfr import ANFR
from experiments.studies.tables.fedbn import FEDBN
from experiments.studies.tables.fednova import FEDNOVA
from experiments.studies.tables.fedwsq import FEDWSQ
from experiments.studies.tables.fixbn import FIXBN
from experiments.studies.tables.hbn import HBN
from experiments.studies.tables.niid_bench import NIID_BENCH
from fl.simulation.study import Study

TABLES: dict[str, dict[str, Callable[[], Study]]] = {
    "niid-bench": NIID_BENCH,
    "fednova": FEDNOVA,
    "fixbn": FIXBN,
    "fedwsq": FEDWSQ,
    "fedbn": FEDBN,
    "anfr": ANFR,
    "hbn": HBN,
}
"""Study -> scale -> how it is made."""
