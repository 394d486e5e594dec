"""Folders of images: ``train|test/CLASS/*.png``, or ``train|test/DOMAIN/CLASS/*.png``.

Names of classes are the sorted names of the training split's folders, or those of `data.classes`;
the test split may lack some. With a level more, the outer folder is the owner of its images.
Hidden files are passed over.
"""

import os
from pathlib import Path

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.parts import Found, Part
from fl.data.formats.pixels import ENDINGS, Stack
from fl.data.formats.reading import TESTS, read_bytes, reading, test_split

_LAYOUTS = {2: "image folder by class", 3: "image folder by domain and class"}

_DEEPEST = 8
"""Folders below a split that are looked into."""

Place = tuple[str, ...]
"""A file's path inside its split: (CLASS, file) or (DOMAIN, CLASS, file)."""


def holds(path: Path) -> bool:
    """Whether a folder has a folder named for a split."""
    return any((path / split).is_dir() for split in ("train", *TESTS))


def read(path: Path, known: tuple[str, ...] = ()) -> Found:
    """Decode all images of the training and the test split, in the order of their paths.

    Args:
        path: of the folder.
        known: the classes, of which it may lack some; none: those of the training split.
    """
    present = [split for split in ("train", *TESTS) if (path / split).is_dir()]
    test = test_split(present, str(path))
    places = {split: _places(path / split) for split in ("train", test)}
    depth = len(places["train"][0])
    for split, files in places.items():
        for place in files:
            if len(place) != depth:
                raise ConfigError(
                    f"{path.joinpath(split, *place)} lies {len(place)} levels below {split}, but "
                    f"the first of train {depth}; expected CLASS/file or DOMAIN/CLASS/file for all"
                )
    classes = sorted({place[-2] for place in places["train"]} | set(known))
    if len(classes) < 2:
        raise ConfigError(_single_class(path / "train", places["train"][0], depth))
    found = {split: _part(path / split, places[split], classes) for split in ("train", test)}
    layout = _LAYOUTS[depth] + ("" if test == "test" else f", tested on {test}")
    if turned := sum(rotated for _, rotated in found.values()):
        layout += f", {turned} with a rotation tag that was not applied"
    return Found(layout, found["train"][0], found[test][0], tuple(classes))


def _single_class(train: Path, place: Place, depth: int) -> str:
    """Say which level of folders is taken for the classes, and that it has only one."""
    levels = " / ".join(("DOMAIN", "CLASS", "file")[3 - depth :])
    said = (
        f"{train}: all images are of the class {place[-2]!r}, the name of the folder that they lie "
        f"in ({levels}); a data set has two classes or more"
    )
    if depth == 3:
        said += (
            f": if the folders such as {place[0]!r} are the classes, move the files up into them"
        )
    return said


def _places(split: Path) -> list[Place]:
    """List a split's images in order, refusing files that are none."""
    places = []
    with reading(str(split)):
        for folder, inner, names in os.walk(split, onerror=_fail, followlinks=True):
            inner[:] = [name for name in inner if not name.startswith(".")]
            inside = Path(folder).relative_to(split).parts
            if len(inside) > _DEEPEST:  # a link to a folder around it, most likely
                raise ConfigError(
                    f"{folder} lies {len(inside)} folders below {split.name}; expected CLASS/file "
                    "or DOMAIN/CLASS/file: is there a link to a folder around it?"
                )
            empty = not (inner or any(not name.startswith(".") for name in names))
            if empty and inside and split.name == "train":
                raise ConfigError(f"{folder}: a class without images; remove the empty folder")
            for name in names:
                if name.startswith("."):
                    continue
                place = (*inside, name)
                if not name.lower().endswith(ENDINGS):
                    raise ConfigError(
                        f"{split.joinpath(*place)} is no image: expected {', '.join(ENDINGS)}"
                    )
                if len(place) not in _LAYOUTS:
                    raise ConfigError(
                        f"{split.joinpath(*place)}: expected CLASS/file or DOMAIN/CLASS/file "
                        f"below {split.name}"
                    )
                places.append(place)
    if not places:
        raise ConfigError(f"{split}: the split has no examples")
    return sorted(places)


def _fail(error: OSError) -> None:
    raise error


def _part(split: Path, places: list[Place], classes: list[str]) -> tuple[Part, int]:
    """Decode a split; returns it, and how many images have a rotation tag."""
    numbers = {name: number for number, name in enumerate(classes)}
    stack = Stack(len(places))
    for place in places:
        file = split.joinpath(*place)
        if place[-2] not in numbers:
            raise ConfigError(f"{file}: the training split has no class {place[-2]!r}")
        stack.add(str(file), read_bytes(file))
    labels = np.array([numbers[place[-2]] for place in places])
    owners = np.array([place[0] for place in places]) if len(places[0]) == 3 else None
    return Part(str(split), stack.images, labels, owners), stack.rotated
