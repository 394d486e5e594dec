"""What becomes of a round in which clients fail, how long one may take, and what is evaluated."""

from typing import Annotated, Literal

from pydantic import Field

from fl.config.parsing import Knobs


class Round(Knobs):
    """How long a round waits for simulated clients, and what it does without them."""

    deadline: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """Seconds, by the clock on the wall, that a simulated client may train, and several that train
    together for each of them. Then its worker process is replaced, and the client is left out of
    the round with this as its reason. With 0 the server waits for ever. With a deadline a result
    depends on how fast a machine is. Where Flower runs the clients, `devices.reply` says how long
    they are waited for."""
    min_replies: Annotated[int, Field(ge=0)] = 0
    """The fewest usable replies of which a round makes a network. A round with fewer leaves the
    network, and what the strategy remembers, as they were."""
    on_failure: Literal["continue", "stop"] = "continue"
    """What becomes of a run in which a client fails: it raises an exception, its process dies, its
    reply is refused or does not come. `continue` goes on without it; `stop` ends the run with
    status 1, and the round can be played again. Whom `fleet.*` loses has not failed."""

    def check(self, sampled: int) -> None:
        """Refuse what no round can have.

        Args:
            sampled: clients of a round.

        Raises:
            ValueError: more replies are needed than clients are asked.
        """
        if self.min_replies > sampled:
            raise ValueError(
                f"round.min-replies={self.min_replies} is more than sampling.clients={sampled}; "
                "lower it"
            )


class Evaluation(Knobs):
    """On how many of the server's images the network of a round is evaluated."""

    every: Annotated[int, Field(ge=1)] = 1
    """Evaluate the network on all test and validation images every so many rounds, in round 0 and
    in the last. The best round is one of those, and `run.patience` ends a run in one of those."""
    images: Annotated[int, Field(ge=0)] = 0
    """Test images on which the rounds between those are evaluated: the same in every round, of each
    class in proportion, drawn from the seed. Their figures are `sample_` and the metric's name.
    With 0 the rounds between are not evaluated."""
    clients: bool = False
    """Whether after the last round all clients score the network on their held-out images, each
    with what stays with it. docs/methods/local.md says what the result has of it then."""
