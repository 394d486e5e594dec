import dataclasses
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from fl import config
from fl.config import Experiment, Network
from fl.nn import RECIPES, SKELETONS, BatchNorm, Place, Recipe, build, find, relevant, scalars
from fl.nn.layers.convs import scaled_standardized
from tests.smallest import PAIRS, SMALLEST

every_recipe = pytest.mark.parametrize("recipe", RECIPES)
every_pair = pytest.mark.parametrize(("kind", "recipe"), PAIRS)


def test_every_skeleton_and_recipe_is_tested() -> None:
    assert SMALLEST.keys() == SKELETONS.keys()
    assert {name for _, name in PAIRS} == RECIPES.keys()
    ours, _ = get_args(Network.model_fields["kind"].annotation)
    assert set(get_args(ours)) == SKELETONS.keys()


def test_a_recipe_that_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="does not fit") as error:
        build(SMALLEST["resnet"], "nf", (1, 28, 28), 10, seeded(1))
    expected = "recipe=nf does not fit network.kind=resnet; it fits nfnet, plainnet, resnet-v2"
    assert str(error.value) == expected


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    kind: str, recipe: str, seed: int = 1, channels: int = 1, space=(28, 28), **knobs
) -> torch.nn.Module:
    network = SMALLEST[kind].model_copy(update=knobs)
    return build(network, recipe, (channels, *space), 10, seeded(seed))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@every_pair
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 8, 8), (1, 1, 28, 28), (2, 3, 5, 7)])
def test_trains_at_batch_size_one(kind: str, recipe: str, shape: tuple[int, ...]) -> None:
    net = make(kind, recipe, channels=shape[1], space=shape[2:])
    logits = net(torch.randn(shape, generator=seeded(2)))
    assert logits.shape == (shape[0], 10)
    F.cross_entropy(logits, torch.zeros(shape[0], dtype=torch.long)).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@every_pair
def test_every_parameter_learns(kind: str, recipe: str) -> None:
    # Of one draw alone, the few ReLUs of a squeeze-and-excitation may all be dead.
    silent = []
    for seed in (1, 2, 3):
        net = make(kind, recipe, seed, space=(16, 16), per_channel=True, init="lecun")
        for name, p in net.named_parameters():
            if name.endswith(".gain"):
                torch.nn.init.ones_(p)  # a branch that starts at 0 hides the layers in front
        net(torch.randn(4, 1, 16, 16, generator=seeded(2))).logsumexp(1).sum().backward()
        silent.append({name for name, p in net.named_parameters() if not p.grad.any()})
    assert set.intersection(*silent) == set()


@every_pair
def test_build_is_a_function_of_the_generator(kind: str, recipe: str) -> None:
    before = torch.get_rng_state()
    first = make(kind, recipe, init="torch").state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = make(kind, recipe, init="torch").state_dict()
    other = make(kind, recipe, seed=2, init="torch").state_dict()
    assert list(first) == list(again)
    assert all(torch.equal(first[key], again[key]) for key in first)
    weights = [key for key in first if key.endswith(("conv.weight", "classifier.weight"))]
    assert not any(torch.equal(first[key], other[key]) for key in weights)


@every_pair
def test_state_makes_the_round_trip(kind: str, recipe: str) -> None:
    images = torch.randn(3, 1, 12, 12, generator=seeded(2))
    net, copy = (make(kind, recipe, seed=seed, space=(12, 12)) for seed in (1, 2))
    net(images)  # moves running statistics, where there are some
    assert not torch.equal(net.eval()(images), copy.eval()(images))
    copy.load_state_dict(net.state_dict())
    assert torch.equal(net(images), copy(images))
    assert all(value.is_floating_point() for value in net.state_dict().values())


def extras(row: Recipe, channels: int, per_channel: bool) -> int:
    """Return the parameters that come with a convolution of that many output channels."""
    place = Place(channels, per_channel)
    layers = row.norm(place), row.activation(place)
    gains = row.conv is scaled_standardized
    return sum(map(count, layers)) + (row.bias + gains) * channels


@pytest.mark.parametrize("recipe", [name for kind, name in PAIRS if kind == "plainnet"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_plainnet_has_as_many_parameters_as_its_formula(recipe: str, per_channel: bool) -> None:
    # Depth 6: 5 convolutions, channels 3-w-w-w-2w-2w, and a classifier of 2w·10 + 10.
    w, row = 6, find(recipe)
    net = make("plainnet", recipe, channels=3, depth=6, width=w, per_channel=per_channel)
    kernels = 9 * (3 * w + 2 * w * w + 2 * w * w + 4 * w * w)
    rest = 3 * extras(row, w, per_channel) + 2 * extras(row, 2 * w, per_channel)
    assert count(net) == kernels + rest + 20 * w + 10


def test_weights_are_standardized_in_front_of_the_norm() -> None:
    net = make("plainnet", "ws-groupnorm", channels=2)
    weight = net.layers[1].conv.standardized().flatten(1)
    torch.testing.assert_close(weight.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(weight.var(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert type(net.layers[1].norm) is torch.nn.GroupNorm


def test_initial_scalars_are_the_documented_ones() -> None:
    zc = make("plainnet", "zc-swish").layers[0].activation
    assert (zc.center.item(), zc.log_beta.exp().item(), zc.scale.item()) == (-1, 1, 1)
    layer = make("plainnet", "salunet").layers[0]
    found = [p.exp().item() for p in layer.parameters() if p.ndim == 0]
    assert found == pytest.approx([2, 2, 0.5, 0.5])


def test_extras_of_each_kind_by_pencil() -> None:
    # batchnorm: shift and scale; none: a bias; zc-swish: a bias and 3; salunet: a bias and 2 + 2.
    found = {
        name: extras(find(name), 8, False) for name in ("batchnorm", "none", "zc-swish", "salunet")
    }
    assert found == {"batchnorm": 16, "none": 8, "zc-swish": 11, "salunet": 12}
    assert extras(find("salunet"), 8, True) == 8 + 4 * 8


def test_resnet_20_has_its_known_size() -> None:
    # 269,722 with shortcuts that weigh nothing (the paper's 0.27 M, CIFAR-10), and the two
    # projections with their norms: 16·32 + 2·32 and 32·64 + 2·64.
    network = Network(kind="resnet", depth=20, width=16, stem_stride=1)
    net = build(network, "batchnorm", (3, 32, 32), 10, seeded(1))
    assert count(net) == 269_722 + (16 * 32 + 64) + (32 * 64 + 128)
    assert count(net) == count(
        build(Network(kind="resnet"), "batchnorm", (3, 32, 32), 10, seeded(1))
    )


def test_auto_is_depth_8_and_width_16() -> None:
    auto = build(Network(), "none", (1, 28, 28), 10, seeded(1)).state_dict()
    explicit = build(Network(depth=8, width=16), "none", (1, 28, 28), 10, seeded(1)).state_dict()
    assert all(torch.equal(auto[key], explicit[key]) for key in explicit)
    kernels = [value.shape[0] for value in auto.values() if value.ndim == 4]
    assert kernels == [16, 16, 16, 16, 32, 32, 32]


@pytest.mark.parametrize(("stride", "side"), [(1, 28), (2, 14)])
def test_strides(stride: int, side: int) -> None:
    images = torch.zeros(1, 1, 28, 28)
    plain = make("plainnet", "none", stem_stride=stride)
    assert plain.layers[0](images).shape[2:] == (side, side)
    assert plain.layers(images).shape[1:] == (8, side // 2, side // 2)
    residual = make("resnet", "none", stem_stride=stride)
    stem = residual.stem(images)
    assert stem.shape[2:] == (side, side)
    assert residual.blocks(stem).shape[1:] == (16, -(-side // 4), -(-side // 4))


def test_a_block_whose_branch_is_silent_is_its_activation() -> None:
    block = make("resnet", "none").blocks[0]
    torch.nn.init.zeros_(block.branch[-1].conv.weight)
    x = torch.randn(1, 4, 6, 6, generator=seeded(1))
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("kind", ["plainnet", "resnet", "resnet-v2"])
def test_scalars_of_a_network(kind: str) -> None:
    assert scalars(make(kind, "batchnorm")) == set()
    net = make(kind, "salunet", per_channel=True)
    found = {name: p for name, p in net.named_parameters() if name in scalars(net)}
    assert all(p.shape in {(4,), (8,), (16,)} for p in found.values())
    rest = {name for name, _ in net.named_parameters()} - set(found)
    assert rest
    assert all(name.endswith((".weight", ".bias")) for name in rest)


@pytest.mark.parametrize(("kind", "recipe"), PAIRS)
def test_rows_tell_which_networks_have_batchnorm(kind: str, recipe: str) -> None:
    layers = make(kind, recipe).modules()
    assert find(recipe).batchnorm == any(isinstance(layer, BatchNorm) for layer in layers)


@every_recipe
def test_knobs_of_statistics_bear_on_recipes_that_have_them(recipe: str) -> None:
    state = {"state.bn", "state.fixed-from"}
    flat = Experiment().replace({"recipe": recipe}).to_flat()
    assert state & relevant(flat).keys() == (state if find(recipe).batchnorm else set())
    assert relevant(flat).keys() | state == config.relevant(flat).keys()
    old = {**flat, "recipe": "no longer there"}
    assert relevant(old) == config.relevant(old)


@every_recipe
def test_a_row_is_told_in_a_sentence(recipe: str) -> None:
    row = find(recipe)
    assert row.description.endswith(".")
    assert "\n" not in row.description
    assert len({row.label for row in RECIPES.values()}) == len(RECIPES)


def test_a_row_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find("none").bias = False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zcswish", "recipe=zcswish does not exist; did you mean zc-swish?"),
        ("BatchNorm", "recipe=BatchNorm does not exist; did you mean batchnorm?"),
        ("qqq", f"recipe=qqq does not exist; known: {', '.join(RECIPES)}"),
    ],
)
def test_an_unknown_recipe_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="does not exist") as error:
        build(Network(), name, (1, 28, 28), 10, seeded(1))
    assert str(error.value) == message


RESNETS = "6n + 2 nor one of 18, 34, 50, 101, 152"


@pytest.mark.parametrize(
    ("kind", "depth", "message"),
    [
        ("plainnet", 1, "depth=1 is too small for a plainnet; it needs at least 2"),
        ("resnet", 19, f"depth=19 is neither {RESNETS}, as a resnet needs; try 18 or 20"),
        ("resnet", 7, f"depth=7 is neither {RESNETS}, as a resnet needs; try 8"),
        ("resnet", 1, f"depth=1 is neither {RESNETS}, as a resnet needs; try 8"),
        ("resnet", 153, f"depth=153 is neither {RESNETS}, as a resnet needs; try 152 or 158"),
        (
            "resnet-v2",
            9,
            "depth=9 is neither 6n + 2 nor one of 26, 18, 34, 50, 101, 152, "
            "as a resnet-v2 needs; try 8 or 14",
        ),
    ],
)
def test_an_impossible_depth_is_one_line(kind: str, depth: int, message: str) -> None:
    with pytest.raises(ValueError, match="depth=") as error:
        make(kind, "none", depth=depth)
    assert str(error.value) == message


def test_a_stem_stride_that_a_skeleton_can_not_have_is_one_line() -> None:
    with pytest.raises(ValueError, match="stem-stride") as error:
        make("plainnet", "none", stem_stride=4)
    expected = "network.stem-stride=4 does not fit network.kind=plainnet; use 1 or 2"
    assert str(error.value) == expected


@pytest.mark.parametrize("depth", [2, 3, 9])
def test_plainnet_of_any_depth(depth: int) -> None:
    net = make("plainnet", "none", depth=depth)
    assert sum(value.ndim == 4 for value in net.state_dict().values()) == depth - 1
    assert net(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@every_pair
@pytest.mark.parametrize("shape", [(100,), (12, 12, 12)])
def test_one_skeleton_for_signals_images_and_volumes(
    kind: str, recipe: str, shape: tuple[int, ...]
) -> None:
    net = build(SMALLEST[kind], recipe, (2, *shape), 7, seeded(1))
    x = torch.randn(1, 2, *shape, generator=seeded(2))
    logits = net(x)
    assert logits.shape == (1, 7)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
