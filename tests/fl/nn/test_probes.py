import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl.nn import BatchNorm, build, probes, seed_noise
from fl.nn.layers.activations import SALU
from fl.nn.layers.merges import Add
from fl.nn.layers.noise import Dropout
from fl.nn.probes import Layer, measure
from tests.smallest import PAIRS, SMALLEST

every_pair = pytest.mark.parametrize(("kind", "recipe"), PAIRS)


@pytest.fixture(autouse=True)
def _double(monkeypatch):
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    rng = seeded(3)
    return torch.randn(shape, generator=rng), torch.randint(3, shape[:1], generator=rng)


def make(kind: str, recipe: str, **knobs) -> nn.Module:
    network = SMALLEST[kind].model_copy(update=knobs)
    return build(network, recipe, (2, 12, 12), 3, seeded(1)).double()


def linear(weights: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    layer.weight.data = torch.tensor(weights)
    return layer


def acsm(x: Tensor, dims: tuple[int, ...] = (0, 2, 3)) -> float:
    return float(x.detach().mean(dims).square().mean())


def acv(x: Tensor, dims: tuple[int, ...] = (0, 2, 3)) -> float:
    return float(x.detach().var(dims, correction=0).mean())


def figures(layers: list[Layer]) -> list[list[float]]:
    return [[x.acsm, x.acv, x.gradient_acsm, x.gradient_acv] for x in layers]


def test_two_layers_by_pencil() -> None:
    """Inputs 1 and 3; h = (x, 2x), logits (h1 + h2, 0) = (3x, 0)."""
    network = nn.Sequential(linear([[1.0], [2.0]]), linear([[1.0, 1.0], [0.0, 0.0]]))
    first, second = measure(network, torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
    # Means of h are 2 and 4, its variances 1 and 4; logits have means 6 and 0, variances 9 and 0.
    assert (first.name, first.kind, first.acsm, first.acv) == ("0", "weights", 10.0, 2.5)
    assert (second.name, second.kind, second.acsm, second.acv) == ("1", "weights", 18.0, 4.5)
    # Of the loss: (softmax - onehot) / 2, the same with the other sign for the second class.
    p, q = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-9))
    g = torch.tensor([(p - 1) / 2, q / 2])
    assert second.gradient_acsm == pytest.approx(float(g.mean() ** 2))
    assert second.gradient_acv == pytest.approx(float(g.var(correction=0)))
    assert first.gradient_acsm == pytest.approx(float(g.mean() ** 2))  # h1 and h2 both weigh 1
    assert (first.branch_acv, first.dead) == (None, None)


def test_the_gradient_at_the_logits_is_softmax_minus_onehot_over_n() -> None:
    inputs, labels = batch(5, 3)
    network = nn.Sequential(linear([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    (layer,) = measure(network, inputs, labels)
    gradient = (inputs.softmax(1) - F.one_hot(labels, 3)) / 5
    assert layer.gradient_acsm == pytest.approx(acsm(gradient, (0,)))
    assert layer.gradient_acv == pytest.approx(acv(gradient, (0,)))
    assert layer.acsm + layer.acv == pytest.approx(float(inputs.square().mean()))  # the poster's


def test_a_convolution_without_rectifier_keeps_mean_and_variance_by_its_weight() -> None:
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data = torch.tensor([2.0, -3.0]).view(2, 1, 1, 1)
    inputs, labels = batch(6, 1, 4, 4)
    m, v = float(inputs.mean()), float(inputs.var(correction=0))
    network = nn.Sequential(conv, nn.Flatten(), nn.Linear(32, 3))
    layer = measure(network, inputs, labels)[0]
    assert layer.acsm == pytest.approx((4 + 9) / 2 * m**2)
    assert layer.acv == pytest.approx((4 + 9) / 2 * v)


def test_batchnorm_has_the_moments_of_its_shift_and_scale() -> None:
    norm = BatchNorm(3)
    norm.bias.data = torch.tensor([1.0, 2.0, -3.0])
    norm.weight.data = torch.tensor([2.0, 0.5, 1.0])
    inputs, labels = batch(8, 3, 5, 5)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(75, 3))
    layer = measure(network, 100 * inputs, labels)[0]
    assert (layer.kind, layer.acsm) == ("norm", pytest.approx(14 / 3))
    assert layer.acv == pytest.approx((4 + 0.25 + 1) / 3, rel=1e-6)  # but for ε
    assert layer.gradient_acsm > 0


@pytest.mark.parametrize("inplace", [False, True])
def test_a_channel_that_is_never_on_is_dead_and_gets_no_gradient(inplace: bool) -> None:
    conv = nn.Conv2d(1, 4, 3)
    conv.bias.data = torch.tensor([0.0, -1e3, 0.0, 0.0])
    network = nn.Sequential(conv, nn.ReLU(inplace), nn.Flatten(), nn.Linear(16, 3))
    inputs, labels = batch(8, 1, 4, 4)
    before, after, _ = measure(network, inputs, labels)
    assert (after.kind, after.dead) == ("activation", 0.25)
    signal = conv(inputs).detach().requires_grad_()
    loss = F.cross_entropy(network[3](signal.relu().flatten(1)), labels)
    (gradient,) = torch.autograd.grad(loss, signal)
    assert figures([before])[0] == pytest.approx(
        [acsm(signal), acv(signal), acsm(gradient), acv(gradient)]
    )
    assert not gradient[:, 1].any()
    assert after.acsm == pytest.approx(acsm(signal.relu()))


def test_one_value_a_channel_tells_nothing_of_death() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    inputs, labels = batch(1, 4)
    layers = measure(network, inputs, labels)
    assert [layer.dead for layer in layers] == [None, None, None]
    assert [layer.acv for layer in layers] == [0.0, 0.0, 0.0]


def test_a_vanished_gradient_is_not_rounded_to_nothing() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).float()
    network[1].weight.data *= 1e-30
    inputs, labels = batch(4, 2)
    layer = measure(network, inputs.float(), labels)[0]
    assert 0 < layer.gradient_acv < 1e-60


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.merge, self.out = nn.Conv2d(2, 2, 1), Add(), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.merge(x, self.conv(x)).mean((2, 3)))


def test_a_merge_tells_of_its_branch() -> None:
    network, (inputs, labels) = Residual(), batch(4, 2, 3, 3)
    conv, merge, _ = measure(network, inputs, labels)
    assert (merge.name, merge.kind) == ("merge", "merge")
    assert merge.branch_acv == pytest.approx(conv.acv)
    assert merge.acv == pytest.approx(acv(inputs + network.conv(inputs)))


class Tokens(nn.Module):
    """Channels last for linear layers, and second for all others, as in our transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.merge, self.act = nn.Linear(2, 4), Add(), nn.ReLU()
        self.norm, self.out = nn.GroupNorm(1, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).mT
        return self.out(self.norm(self.merge(x, self.act(x))).mean(2))


def test_channels_of_tokens_come_last_for_linear_layers_alone() -> None:
    network, (inputs, labels) = Tokens(), batch(4, 5, 2)
    embed, act, merge, _, out = measure(network, inputs, labels)
    x = network.embed(inputs)
    for layer, signal in ((embed, x), (act, x.relu()), (merge, x + x.relu())):
        assert layer.acsm == pytest.approx(acsm(signal, (0, 1)))
        assert layer.acv == pytest.approx(acv(signal, (0, 1)))
    assert embed.gradient_acv > 0
    assert out.gradient_acsm > 0


def test_channels_of_signals_come_second() -> None:
    network = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    inputs, labels = batch(4, 2, 5)
    for layer, signal in zip(
        measure(network, inputs, labels), (network[0](inputs), network[:2](inputs)), strict=False
    ):
        assert layer.acsm == pytest.approx(acsm(signal, (0, 2)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.again, self.never = nn.Linear(3, 3), nn.Linear(3, 3)
        self.norm = nn.Sequential(SALU(1.0, 1.0), nn.Linear(3, 3))
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.activation(self.norm(self.again(x))))


def test_a_reading_per_call_and_the_kind_of_the_slot() -> None:
    layers = measure(Twice(), *batch(4, 3))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("again", "weights"),
        ("norm", "norm"),
        ("again", "weights"),
    ]


class Aside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.aside = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.out(x)


def test_what_the_loss_does_not_depend_on_has_no_gradient() -> None:
    aside, out = measure(Aside(), *batch(4, 3))
    assert (aside.gradient_acsm, aside.gradient_acv) == (0, 0)
    assert out.gradient_acv > 0


@every_pair
def test_the_figures_are_those_of_kept_tensors_and_their_grad(kind: str, recipe: str) -> None:
    network, (inputs, labels) = make(kind, recipe), batch(4, 2, 12, 12)
    layers = measure(network, inputs, labels)
    kept: list[tuple[bool, Tensor]] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        output.retain_grad()
        kept.append((isinstance(module, nn.Linear), output))

    modules = dict(network.named_modules())
    for name in {layer.name for layer in layers}:
        modules[name].register_forward_hook(keep)
    F.cross_entropy(network.train()(inputs), labels).backward()
    for found, (channels_last, output) in zip(figures(layers), kept, strict=True):
        channels = output.ndim - 1 if channels_last else 1
        dims = tuple(dim for dim in range(output.ndim) if dim != channels)
        gradient = output.grad
        expected = [
            acsm(output, dims),
            acv(output, dims),
            acsm(gradient, dims),
            acv(gradient, dims),
        ]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-20)


@every_pair
def test_every_layer_with_weights_is_read_once_and_the_classifier_last(kind, recipe) -> None:
    network = make(kind, recipe)
    layers = measure(network, *batch(4, 2, 12, 12))
    weighed = [layer.name for layer in layers if layer.kind == "weights"]
    assert sorted(f"{name}.weight" for name in weighed) == sorted(probes.weights(network))
    assert layers[-1].name == "classifier"
    assert len(weighed) == len(set(weighed))


def account(network: nn.Module) -> list:
    """Write down all that a measurement might change."""
    return [
        {name: tensor.clone() for name, tensor in network.state_dict().items()},
        [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in network.parameters()],
        [m.training for m in network.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        [getattr(m, "single_value_steps", None) for m in network.modules()],
        [g.get_state() for m in network.modules() if (g := getattr(m, "generator", None))],
        [list(vars(m)) for m in network.modules()],
        torch.get_rng_state(),
    ]


def same(one: object, two: object) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


class Failing(nn.Module):
    """Raises behind everything else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        self.network(x)
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("kind", "recipe", "images"),
    [(*pair, 4) for pair in PAIRS] + [(*pair, 1) for pair in PAIRS if pair[0] == "plainnet"],
)
def test_nothing_is_changed(kind: str, recipe: str, images: int) -> None:
    network = make(kind, recipe, dropout=0.5, stochastic_depth=0.5)
    seed_noise(network, seeded(5))
    inputs, labels = batch(4, 2, 12, 12)
    network.train()
    network(inputs).sum().backward()
    next(network.children()).eval()  # a mode of its own
    before = account(network)
    measure(network, inputs[:images], labels[:images])
    assert same(account(network), before)
    with pytest.raises(RuntimeError, match="broken"):
        measure(Failing(network), inputs, labels)
    assert same(account(network), before)
    network.train()(inputs)
    assert recipe != "batchnorm" or not same(account(network), before), "the account sees nothing"


def test_a_batch_is_left_as_it_is_and_noise_is_off() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), Dropout(0.9), nn.Linear(4, 3))
    inputs, labels = batch(4, 4)
    before = inputs.clone()
    with torch.no_grad():
        relu, logits = measure(network, inputs, labels)
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert relu.acsm == pytest.approx(acsm(inputs.relu(), (0,)))
    assert logits.acsm == pytest.approx(acsm(network[2](inputs.relu()), (0,)))


def test_measuring_twice_is_measuring_once() -> None:
    network, (inputs, labels) = make("plainnet", "batchnorm"), batch(4, 2, 12, 12)
    first = measure(network, inputs, labels)
    assert measure(network.eval(), inputs, labels) == first
    assert measure(copy.deepcopy(network), inputs, labels) == first


def test_weights_and_scalars_by_pencil() -> None:
    network = nn.Sequential(linear([[1.0, 3.0]]), SALU(1.0, math.e), SALU(math.e, 1.0, 2, True))
    assert probes.weights(network) == {"0.weight": {"mean": 2.0, "std": 1.0}}
    assert probes.scalars(network) == {
        "1.log_a": 0.0,
        "1.log_b": pytest.approx(1.0),
        "2.log_a": [1.0, 1.0],
        "2.log_b": [0.0, 0.0],
    }
    assert probes.weights(linear([[1.0]])) == {"weight": {"mean": 1.0, "std": 0.0}}
    assert probes.weights(nn.ReLU()) == probes.scalars(nn.ReLU()) == {}


def test_standardized_weights_are_told_as_they_learn() -> None:
    network = make("plainnet", "nf")
    found = probes.weights(network)["layers.0.conv.weight"]
    raw = network.layers[0].conv.weight.detach()
    assert found["mean"] == pytest.approx(float(raw.mean()))
    assert found["std"] == pytest.approx(float(raw.std(correction=0)))
    names = {layer.name for layer in measure(network, *batch(4, 2, 12, 12))}
    assert "layers.0.conv" in names
