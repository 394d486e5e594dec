"""What is asked of a network: loss, metrics, and what a label is."""

from fl.tasks.choice import METRICS as METRICS
from fl.tasks.choice import PLAIN as PLAIN
from fl.tasks.choice import objective as objective
from fl.tasks.metrics import Metric as Metric
from fl.tasks.task import Objective as Objective
from fl.tasks.task import Task as Task
