"""Data sets that a user's own Python makes: from arrays, or from a data set of PyTorch's."""

from fl.data.own.arrays import Dataset as Dataset
from fl.data.own.arrays import made as made
from fl.data.own.keeping import kept as kept
