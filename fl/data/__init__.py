"""Data sets by name, a client's share of one, and the batches that it trains on."""

from fl.data.catalogue import CATALOGUE as CATALOGUE
from fl.data.dataset import Batch as Batch
from fl.data.dataset import Dataset as Dataset
from fl.data.dataset import Form as Form
from fl.data.dataset import Share as Share
from fl.data.dataset import Split as Split
from fl.data.dataset import batches as batches
from fl.data.shares import counts as counts
from fl.data.shares import deal as deal
from fl.data.shares import load as load
from fl.data.shares import share as share
from fl.data.shares import validation as validation
from fl.data.shares import write_shard as write_shard
