"""From a folder of runs to tables, figures and one HTML page."""

from experiments.report import propagation as propagation
from experiments.report.contact import sheet as sheet
from experiments.report.figures import deal as deal
from experiments.report.figures import save as save
from experiments.report.labels import partition as partition
from experiments.report.page import write as write
