"""A network as one vector of weights: what training, penalties and norms work on."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fl.config import Experiment
from fl.data import load
from fl.nn import build, forget_statistics, scalars
from fl.settings import ConfigError

Vector = Float[Tensor, " weights"]


def network(knobs: Experiment, generator: torch.Generator) -> "FlatNetwork":
    """Build an experiment's network on its device, with initial weights from a generator.

    Raises:
        ConfigError: the recipe, the skeleton's size or the device does not exist.
    """
    dataset = load(knobs.data.name)
    try:
        module = build(knobs.network, knobs.recipe, dataset.shape, len(dataset.classes), generator)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if knobs.state.bn == "drop":
        forget_statistics(module)
    return FlatNetwork(module, _device(knobs.device))


class FlatNetwork:
    """A network whose parameters live in one vector and whose gradients live in another.

    Args:
        module: any network; its parameters become views of `weights`, in the module's order.
        device: where it trains.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.to(device)
        parameters = list(module.parameters())
        self.weights = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.weights)
        self._tensors: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
        start = 0
        for parameter in parameters:
            view = slice(start, start + parameter.numel())
            parameter.data = self.weights[view].view_as(parameter)
            parameter.grad = self.gradient[view].view_as(parameter)
            start = view.stop

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite every parameter and buffer, so that nothing of the last client stays.

        Raises:
            ValueError: the names or shapes are not this network's.
        """
        if state.keys() != self._tensors.keys():
            odd = sorted(state.keys() ^ self._tensors.keys())
            raise ValueError(f"the state's tensors are not this network's; different: {odd[:3]}")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                found, wanted = tuple(state[name].shape), tuple(tensor.shape)
                if found != wanted:
                    raise ValueError(f"{name} has shape {found}, expected {wanted}")
                tensor.copy_(state[name])

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, on the CPU."""
        return {name: t.detach().cpu().clone() for name, t in self._tensors.items()}

    def rate_factors(self, activation_lr: float) -> Vector | None:
        """Return a factor per weight on the learning rate; None where all are 1."""
        if activation_lr == 1:
            return None
        chosen = scalars(self.module)
        return torch.cat(
            [
                torch.full((p.numel(),), activation_lr if name in chosen else 1.0)
                for name, p in self.module.named_parameters()
            ]
        ).to(self.weights.device)


def device_name(network: FlatNetwork) -> str:
    """Return where a network trains: `cpu`, or the name of the GPU."""
    device = network.weights.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA device here; use device=cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
