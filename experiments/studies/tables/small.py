"""What the small tables have in common: seconds a run on one core, and the shipped images."""

from fl.config import Experiment

SEEDS = (1, 2, 3, 5, 6, 7, 8, 9)
"""4 is that of the study `learning-rates`. n seeds have p ≥ 2 / 2ⁿ, so that verdicts on three
comparisons take seven, and on six eight. Where those took too long a table has the first three,
which carry no verdict; with more, `fednf study NAME --from docs/studies/tables/NAME` does what is
missing."""
FASHION = Experiment().replace(
    {
        "network.kind": "cnn",
        "network.width": 6,
        "network.stem-stride": 2,
        "client.batch-size": 32,
        "engine": "vectorized",
        "vectorized.level": "native",
    }
)
"""5,000 images of Fashion-MNIST, of which a step sees 32, and two convolutions."""
DATA = "5,000 images of Fashion-MNIST for training and 1,000 for testing"
