"""Partition a data set among clients: labels in, index arrays out. Knows only NumPy."""

from partitions.deal.hold_out import hold_out as hold_out
from partitions.deal.skew import Skew as Skew
from partitions.deal.skew import counts as counts
from partitions.deal.skew import measure as measure
from partitions.dirichlet import dirichlet as dirichlet
from partitions.dirichlet_balanced import dirichlet_balanced as dirichlet_balanced
from partitions.dirichlet_equal import dirichlet_equal as dirichlet_equal
from partitions.feature_noise import noise_levels as noise_levels
from partitions.iid import iid as iid
from partitions.label_count import label_count as label_count
from partitions.mixture import mixture as mixture
from partitions.natural import natural as natural
from partitions.quantity import quantity as quantity
from partitions.shards import shards as shards
