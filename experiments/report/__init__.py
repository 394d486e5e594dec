"""From a folder of runs to tables, figures and one HTML page."""

from experiments.report.drawing.contact_sheet import contact_sheet as contact_sheet
from experiments.report.drawing.figures import deal as deal
from experiments.report.drawing.figures import save as save
from experiments.report.drawing.timeline import timeline as timeline
from experiments.report.labels import partition as partition
from experiments.report.page import data_read as data_read
from experiments.report.page import write as write
from experiments.report.sections import propagation as propagation
from experiments.report.verdicts.course import between_looks as between_looks
from experiments.report.verdicts.course import comparisons as comparisons
