"""The recipes that have a normalizer, and with it the network's own activation."""

from fl.nn.layers.convs import standardized
from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.layers.normalizers.groups import InstanceNorm, group_norm, layer_norm
from fl.nn.layers.normalizers.mixtures import FederatedBatchNorm, HybridBatchNorm
from fl.nn.layers.normalizers.renormalized import BatchRenorm
from fl.nn.recipe import Recipe
from fl.nn.recipes.skeletons import ANYWHERE, DENSE, PLAIN

NORMALIZED: dict[str, Recipe] = {
    "batchnorm": Recipe(
        label="BatchNorm",
        description="Batch normalization and the network's own activation, such as ReLU.",
        norm=lambda place: BatchNorm(place.channels),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
        batchnorm=True,
        bias=False,
    ),
    "batchnorm-no-affine": Recipe(
        label="BatchNorm, no scale and shift",
        description="Batch normalization without scale and shift, and the network's own "
        "activation.",
        caveat="layers in front of it have no bias, since the batch's mean would cancel it.",
        norm=lambda place: BatchNorm(place.channels, affine=False),
        activation=lambda place: place.native(),
        fits=DENSE,
        batchnorm=True,
        bias=False,
    ),
    "hbn": Recipe(
        label="HBN",
        description="Batch normalization by a learned mixture of the shared statistics and the "
        "batch's, and the network's own activation.",
        caveat="its paper (arXiv 2505.21877) collects statistics in passes of their own and leaves "
        "the mixture with each client: state.bn=recalibrate and state.local=*.mixture.",
        norm=lambda place: HybridBatchNorm(place.channels),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
        batchnorm=True,
        bias=False,
    ),
    "fbn": Recipe(
        label="FBN",
        description="Batch normalization by the statistics that all clients share, also in "
        "training, and the network's own activation.",
        caveat="its paper (arXiv 2405.14670) could not be read in full; what clients note down of "
        "their batches is our BatchNorm's running mean and variance.",
        norm=lambda place: FederatedBatchNorm(place.channels),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
        batchnorm=True,
        bias=False,
    ),
    "batch-renorm": Recipe(
        label="BatchReNorm",
        description="Batch renormalization, by the batch's statistics corrected towards the "
        "running ones, and the network's own activation.",
        caveat="the correction is bounded by r = 3 and d = 5 from the first step on, where its "
        "paper (arXiv 1702.03275) lets the bounds grow.",
        norm=lambda place: BatchRenorm(place.channels),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
        batchnorm=True,
        bias=False,
    ),
    "groupnorm": Recipe(
        label="GroupNorm",
        description="Group normalization with at most four groups, or as many as network.groups "
        "says, and the network's own activation.",
        norm=lambda place: group_norm(place.channels, place.groups),
        grouped=True,
        activation=lambda place: place.native(),
        fits=DENSE,
        bias=False,
    ),
    "groupnorm-2": Recipe(
        label="GroupNorm(2)",
        description="Group normalization with two groups, and the network's own activation.",
        norm=lambda place: group_norm(place.channels, most=2),
        activation=lambda place: place.native(),
        fits=DENSE,
        bias=False,
    ),
    "ws-groupnorm": Recipe(
        label="WS + GroupNorm",
        description="Weight standardization, group normalization with at most four groups, or "
        "as many as network.groups says, and the network's own activation.",
        norm=lambda place: group_norm(place.channels, place.groups),
        grouped=True,
        activation=lambda place: place.native(),
        fits=PLAIN,
        bias=False,
        conv=standardized,
    ),
    "instancenorm": Recipe(
        label="InstanceNorm",
        description="Instance normalization, and the network's own activation.",
        norm=lambda place: InstanceNorm(place.channels),
        activation=lambda place: place.native(),
        fits=PLAIN - {"efficientnet"},  # it shrinks a small image to a pixel, and that to 0
        bias=False,
    ),
    "layernorm": Recipe(
        label="LayerNorm",
        description="Layer normalization over channels and space, in a transformer over the "
        "channels of each token, and the network's own activation.",
        norm=lambda place: layer_norm(place.channels, place.tokens),
        activation=lambda place: place.native(),
        fits=ANYWHERE,
        bias=False,
    ),
}
"""The rows by name."""
