"""The smallest network of every family, every recipe that fits it, and a small strategy."""

from fl.config import Network
from fl.nn import RECIPES

SMALLEST = {
    "plainnet": Network(kind="plainnet", depth=4, width=4),
    "cnn": Network(kind="cnn", depth=3, width=4),
    "resnet": Network(kind="resnet", depth=8, width=4),
    "resnet-v2": Network(kind="resnet-v2", depth=8, width=4),
    "nfnet": Network(kind="nfnet", depth="F0", width=4),
    "efficientnet": Network(kind="efficientnet", depth=8, width=4),
    "ffnn": Network(kind="ffnn", depth=3, width=8),
    "vit": Network(kind="vit", depth=2, width=8),
}
PAIRS = [(kind, name) for kind in SMALLEST for name, row in RECIPES.items() if kind in row.fits]
MOMENTUM = """
import fl


class Momentum(fl.Strategy):
    def aggregate(self, gathered):
        step = gathered.state.get("step", 0) * 0.9 + gathered.mean - gathered.start
        gathered.state["step"] = step
        return gathered.start + step
"""
