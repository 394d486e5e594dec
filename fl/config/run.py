"""What a run begins with, when it ends, and where it is written."""

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from fl.config.components import is_component
from fl.config.parsing import ConfigError, Knobs, Value
from fl.reproducibility.files import at_home
from fl.reproducibility.machine import check_file

Seed = Annotated[int, Field(ge=0, lt=2**63)]
OwnSeed = Seed | Literal["auto"]
Governed = Literal["deal", "init", "sampling", "order"]
"""What can have a seed of its own."""


class Seeds(Knobs):
    """What all randomness begins with: one seed, or others for what is to vary by itself."""

    seed: Seed = 1
    """The one seed. All randomness is a function of the seed and of a path."""
    seed_deal: OwnSeed = Field("auto", alias="seed.deal")
    """Seed of who holds which images: of the deal, of `data.validation` and of
    `partition.held-out`. `auto`, here and below: `seed`."""
    seed_init: OwnSeed = Field("auto", alias="seed.init")
    """Seed of the initial weights."""
    seed_sampling: OwnSeed = Field("auto", alias="seed.sampling")
    """Seed of which clients take part in which round."""
    seed_order: OwnSeed = Field("auto", alias="seed.order")
    """Seed of what training draws: the order of images, augmentation, dropout, and the noise of
    `privacy.per-example-noise`. The fleet, faults and all else is always drawn by `seed`."""

    @cached_property
    def seeds(self) -> dict[Governed, int]:
        """The seed that governs each part of the randomness."""
        parts = get_args(Governed)
        own = {f"seed.{part}": getattr(self, f"seed_{part}") for part in parts}
        return dict(zip(parts, block_of({"seed": self.seed, **own})[1:], strict=True))


def block_of(flat: Mapping[str, Value]) -> tuple[int, ...]:
    """Return what pairs an experiment with others, by its flat knobs.

    It is the seed, and the seeds that govern deal, initial weights, sampling and order.
    """
    own = (flat.get(f"seed.{what}", "auto") for what in get_args(Governed))
    return int(flat["seed"]), *(int(flat["seed"] if seed == "auto" else seed) for seed in own)


class Run(Knobs):
    """Where a run begins, when it ends, and, where `flwr run` starts it, its folder."""

    start_from: str = ""
    """Weights to start from: the folder of a finished run, or a `.safetensors` file whose tensors
    have the names and shapes of the network's. If empty, the network's initial weights."""
    start_sha256: str = ""
    """SHA-256 of the file that `run.start-from` names. It is computed; leave it out."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Rounds without a better score on the images of `data.validation` after which a run ends. 0
    plays all rounds."""
    dir: str = ""
    """The folder of a run that `flwr run` starts, as an absolute path. If empty, a folder named by
    Flower's run id in the user's data directory."""
    resume: bool = False
    """Whether to resume from the checkpoint in that folder."""
    callbacks: str = ""
    """Callbacks that the server of `flwr run` tells of the run, with commas between:
    `/absolute/path/file.py:Name` or `package.module:Name`; see docs/guide/running/watch.md."""

    @model_validator(mode="before")
    @classmethod
    def _weights_have_a_hash(cls, table: object) -> object:
        """Put the hash of given weights beside their path, unless it is there or no file is."""
        if not isinstance(table, Mapping):
            return table
        given = {str(key).replace("_", "-"): value for key, value in table.items()}
        text = given.get("start-from")
        if not (isinstance(text, str) and text) or given.get("start-sha256"):
            return table
        return {**given, "start-sha256": sha256_of(weights_file(text))}

    @field_validator("dir")
    @classmethod
    def _dir_is_absolute(cls, text: str) -> str:
        if text and not Path(text).is_absolute():
            raise ValueError("should be an absolute path, since Flower runs the server elsewhere")
        return text

    @field_validator("callbacks")
    @classmethod
    def _callbacks_are_found(cls, text: str) -> str:
        for name in filter(None, text.split(",")):
            file = Path(name.strip().rpartition(":")[0])
            if not is_component(name.strip()):
                raise ValueError(f"should be /path/file.py:Name or package.module:Name, not {name}")
            if file.suffix == ".py" and not file.is_absolute():
                raise ValueError(
                    f"{file} should be an absolute path, since Flower runs the server elsewhere"
                )
        return text


def weights_file(text: str) -> Path:
    """Return the file that `run.start-from` means: of a run's folder, its last network."""
    path = at_home(text)
    single = path.suffix == ".safetensors" or path.is_file()
    return path if single else path / "model.safetensors"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; empty where there is no file, as on a device.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        found = path.stat()
        check_file(path)
        return _sha256(path.resolve(), found.st_mtime_ns, found.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ConfigError(f"run.start-from: can't read {path}: {error.strerror}") from None


@lru_cache(maxsize=16)
def _sha256(path: Path, changed: int, size: int) -> str:
    """Hash a file once as long as its time and size stay, since knobs are made many times."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
