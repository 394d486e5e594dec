"""What stays with a client, on which both ends of a message agree.

This file is not on the path of the simplest round, in which nothing does.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import chain

from flwr.app import Message
from torch import Tensor, nn

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.messages import records
from fl.nn import scalars, statistics
from fl.nn.foreign.observed import activation, is_norm, is_strange_norm
from fl.nn.initialization import WEIGHED
from fl.tasks import objective
from strategies.arrays import Arrays

_Named = Iterable[tuple[str, Tensor]]


def staying(knobs: Experiment, module: nn.Module, classes: int) -> frozenset[str]:
    """Return the names of the tensors that stay with a client, as a network's state has them.

    With `state.bn=local` these are BatchNorm's running statistics; with `state.local`, what it
    names, and with `norm` the normalizers' buffers, too. The server's network has no statistics
    that stay with clients, see `fl.training.parameters.as_shared`.

    Args:
        knobs: the experiment.
        module: its network, on a client or on the server.
        classes: of the data.

    Raises:
        ConfigError: a pattern names no parameter; no parameter would be left to share; or the head
            is not to be found.
    """
    kept = set(statistics(module)) if knobs.state.keeps_statistics else set[str]()
    if knobs.state.local == "none":
        return frozenset(kept)
    chosen = {id(tensor) for _, tensor in _chosen(knobs, module, classes)}
    shared = [name for name, p in module.named_parameters() if id(p) not in chosen]
    if not shared:
        raise ConfigError(
            f"state.local={knobs.state.local} leaves no parameter to share; name fewer of them"
        )
    tensors = module.state_dict(keep_vars=True)  # a tensor may have several names
    return frozenset(kept | {name for name, tensor in tensors.items() if id(tensor) in chosen})


def _chosen(knobs: Experiment, module: nn.Module, classes: int) -> _Named:
    """Return what `state.local` names, with one of its names each."""
    match knobs.state.local:
        case "norm":
            layers = [layer for layer in module.modules() if _normalizes(layer)]
            own = (
                (x.named_parameters(recurse=False), x.named_buffers(recurse=False)) for x in layers
            )
            return chain.from_iterable(chain.from_iterable(own))
        case "activations":
            ours = scalars(module)
            theirs = (x.named_parameters() for x in module.modules() if activation(x))
            named = ((name, p) for name, p in module.named_parameters() if name in ours)
            return chain(named, *theirs)
        case "head":
            return _head(module, objective(knobs).task.outputs(classes)).named_parameters()
        case pattern:
            return _matching(pattern, module)


def _normalizes(layer: nn.Module) -> bool:
    return is_norm(layer) or is_strange_norm(layer)


def _head(module: nn.Module, outputs: int) -> nn.Module:
    """Return the last layer with weights, in the order in which the network has them."""
    weighed = [(name, x) for name, x in module.named_modules() if isinstance(x, WEIGHED)]
    name, layer = weighed[-1] if weighed else ("", None)
    if layer is None or len(layer.weight) != outputs:
        found = f"the last layer with weights is {name}" if weighed else "no layer has weights"
        raise ConfigError(
            f"state.local=head: expected a last layer with {outputs} outputs, and {found}; give a "
            "pattern of the names of its parameters instead, as state.local='fc.*'"
        )
    return layer


def _matching(pattern: str, module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters that a pattern matches, or one of several with commas between."""
    named, patterns = list(module.named_parameters()), pattern.split(",")
    for each in patterns:
        if not any(fnmatchcase(name, each) for name, _ in named):
            raise ConfigError(
                f"state.local={pattern}: no parameter's name matches {each}; expected none, norm, "
                f"activations, head, or a pattern of names such as {named[0][0]}"
            )
    return [(name, p) for name, p in named if any(fnmatchcase(name, each) for each in patterns)]


def give_initial(messages: Sequence[Message], initial: Arrays) -> None:
    """Let requests carry what clients begin with of what stays with them, such as given weights."""
    record = records.pack_arrays(initial)
    for content in {id(message.content): message.content for message in messages}.values():
        content[records.INITIAL] = record
