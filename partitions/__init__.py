"""How data is dealt out: labels in, index arrays out. Knows only NumPy."""

from partitions.dirichlet import dirichlet as dirichlet
from partitions.dirichlet_equal import dirichlet_equal as dirichlet_equal
from partitions.iid import iid as iid
from partitions.skew import Skew as Skew
from partitions.skew import counts as counts
from partitions.skew import measure as measure
