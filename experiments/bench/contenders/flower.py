"""Stock Flower: its FedAvg in its Ray simulation, a core a client."""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from experiments.bench.contenders import loop
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import Workload, draws, right, workload
from fl.config import Experiment
from fl.reproducibility.provenance import cores


class _Timed(FedAvg):
    """Flower's FedAvg, which also says when a round is tested, and which client each node is."""

    def __init__(self, record: Record, knobs: Experiment) -> None:
        clients, everyone = knobs.sampling.clients, knobs.partition.clients
        # Flower 1.41 trains int(nodes that are there · fraction), but no fewer than the minimum: a
        # fraction that falls short of a whole number, or nodes that come late, change nothing.
        super().__init__(
            fraction_train=clients / everyone,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=everyone,
        )
        self.record, self.draws = record, draws(knobs)
        self.trained = (0, float("nan"))
        """Images and mean loss of the last round."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as many nodes as ever, and let each be one of the clients that everybody has."""
        messages = super().configure_train(server_round, arrays, config, grid)
        for message, client in zip(messages, next(self.draws), strict=True):
            content = RecordDict({**message.content, "client": ConfigRecord({"id": client})})
            yield Message(content, message.metadata.dst_node_id, message.metadata.message_type)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and keep how many images that was."""
        replies = list(replies)
        arrays, figures = super().aggregate_train(server_round, replies)
        usable = [reply.content["metrics"] for reply in replies if not reply.has_error()]
        self.trained = (
            sum(int(metrics["num-examples"]) for metrics in usable),  # pyrefly: ignore
            float(figures["loss"]) if figures else float("nan"),  # pyrefly: ignore
        )
        return arrays, figures

    def tested(self, server_round: int, arrays: ArrayRecord, job: Workload) -> MetricRecord:
        """Test a round's network on all cores, since no client is at work, and record the round."""
        torch.set_num_threads(cores())
        job.network.load_state_dict(arrays.to_torch_state_dict())
        accuracy = right(job.network, *job.test) / len(job.test[1])
        if server_round:
            self.record(*self.trained, accuracy)
        return MetricRecord({"accuracy": accuracy})


def run(knobs: Experiment, record: Record) -> None:
    """Simulate with Ray actors that keep the data and the network from client to client."""
    clients, server = ClientApp(), ServerApp()

    @clients.train()
    def train(message: Message, context: Context) -> Message:
        job = workload(knobs)
        images, labels = job.clients[int(message.content["client"]["id"])]  # pyrefly: ignore
        sent = message.content["arrays"].to_torch_state_dict()  # pyrefly: ignore
        job.network.load_state_dict(sent)
        total = loop.train(job.network, images, labels, knobs)
        figures = MetricRecord({"loss": total / len(labels), "num-examples": len(labels)})
        arrays = ArrayRecord(job.network.state_dict())
        return Message(RecordDict({"arrays": arrays, "metrics": figures}), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        torch.manual_seed(knobs.seed)
        job, strategy = workload(knobs), _Timed(record, knobs)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(job.network.state_dict()),
            num_rounds=knobs.rounds,
            evaluate_fn=lambda number, arrays: strategy.tested(number, arrays, job),
        )

    run_simulation(
        server_app=server,
        client_app=clients,
        num_supernodes=knobs.partition.clients,
        backend_config={
            "init_args": {"num_cpus": cores()},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
