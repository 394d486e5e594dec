"""Stock Flower: its FedAvg in its Ray simulation, a core a client."""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from experiments.bench.contenders import loop
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import workload
from fl.config import Experiment
from fl.reproducibility.provenance import cores


class _Timed(FedAvg):
    """Flower's FedAvg, which also says when a round is aggregated."""

    def __init__(self, record: Record, clients: int, everyone: int) -> None:
        # Flower 1.41 trains int(nodes that are there · fraction), but no fewer than the minimum: a
        # fraction that falls short of a whole number, or nodes that come late, change nothing.
        super().__init__(
            fraction_train=clients / everyone,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=everyone,
        )
        self.record = record

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, then say how many images that was."""
        replies = list(replies)
        arrays, figures = super().aggregate_train(server_round, replies)
        usable = [reply.content["metrics"] for reply in replies if not reply.has_error()]
        self.record(
            sum(int(metrics["num-examples"]) for metrics in usable),  # pyrefly: ignore
            float(figures["loss"]) if figures else float("nan"),  # pyrefly: ignore
        )
        return arrays, figures


def run(knobs: Experiment, record: Record) -> None:
    """Simulate with Ray actors that keep the data and the network from client to client."""
    clients, server = ClientApp(), ServerApp()

    @clients.train()
    def train(message: Message, context: Context) -> Message:
        job = workload(knobs)
        images, labels = job.clients[int(context.node_config["partition-id"])]
        sent = message.content["arrays"].to_torch_state_dict()  # pyrefly: ignore
        job.network.load_state_dict(sent)
        total = loop.train(job.network, images, labels, knobs)
        figures = MetricRecord({"loss": total / len(labels), "num-examples": len(labels)})
        arrays = ArrayRecord(job.network.state_dict())
        return Message(RecordDict({"arrays": arrays, "metrics": figures}), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        torch.manual_seed(knobs.seed)
        arrays = ArrayRecord(workload(knobs).network.state_dict())
        strategy = _Timed(record, knobs.sampling.clients, knobs.partition.clients)
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=knobs.rounds)

    run_simulation(
        server_app=server,
        client_app=clients,
        num_supernodes=knobs.partition.clients,
        backend_config={
            "init_args": {"num_cpus": cores()},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
