"""The sets of skeletons that recipes fit."""

PLAIN = frozenset({"plainnet", "cnn", "resnet", "resnet-v2", "efficientnet"})
"""Skeletons for layers that only need a convolution in front of them."""
RESIDUAL = PLAIN - {"plainnet", "cnn"}
"""Those of `PLAIN` that have residual branches."""
DENSE = PLAIN | {"ffnn"}
"""Skeletons for layers that need neither convolutions nor space."""
ANYWHERE = DENSE | {"vit"}
"""Skeletons for layers that also work on tokens."""
SCALED = frozenset({"plainnet", "resnet-v2", "nfnet"})
"""Skeletons in which an activation's output goes into a convolution that can rescale it."""
