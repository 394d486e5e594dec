"""A record of when each round was finished, which any process of a contender can write."""

import json
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """A file with a line a round; the clock is the machine's, the same in all processes."""

    path: Path

    def __call__(self, images: int, loss: float, accuracy: float) -> None:
        """Record a finished round.

        Args:
            images: how many it trained on.
            loss: their mean loss.
            accuracy: of the network that came of it, on the test images.
        """
        line = {"at": time.monotonic(), "images": images, "loss": loss, "accuracy": accuracy}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict]:
        """Return the recorded rounds."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
