"""Users' own files as data sets: the layouts that image data come in, one file for each."""

from fl.data.formats.hub import hub as hub
from fl.data.formats.layouts import read as read
