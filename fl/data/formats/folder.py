"""Folders of images: ``train|test/CLASS/*.png``, or ``train|test/DOMAIN/CLASS/*.png``.

Names of classes are the sorted names of the training split's folders; the test split may lack
some. With a level more, the outer folder is the owner of its images. Hidden files are passed over.
"""

import os
from pathlib import Path

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.parts import Found, Part
from fl.data.formats.pixels import ENDINGS, Stack
from fl.data.formats.reading import TESTS, reading, test_split

_LAYOUTS = {2: "image folder by class", 3: "image folder by domain and class"}

Place = tuple[str, ...]
"""A file's path inside its split: (CLASS, file) or (DOMAIN, CLASS, file)."""


def holds(path: Path) -> bool:
    """Whether a folder has a folder named for a split."""
    return any((path / split).is_dir() for split in ("train", *TESTS))


def read(path: Path) -> Found:
    """Decode all images of the training and the test split, in the order of their paths."""
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
    classes = sorted({place[-2] for place in places["train"]})
    train = _part(path / "train", places["train"], classes)
    layout = _LAYOUTS[depth] + ("" if test == "test" else f", tested on {test}")
    return Found(layout, train, _part(path / test, places[test], classes), tuple(classes))


def _places(split: Path) -> list[Place]:
    """List a split's images in order, refusing files that are none."""
    places = []
    with reading(str(split)):
        for folder, inner, names in os.walk(split, onerror=_fail, followlinks=True):
            inner[:] = [name for name in inner if not name.startswith(".")]
            inside = Path(folder).relative_to(split).parts
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


def _part(split: Path, places: list[Place], classes: list[str]) -> Part:
    numbers = {name: number for number, name in enumerate(classes)}
    stack = Stack(len(places))
    for place in places:
        file = split.joinpath(*place)
        if place[-2] not in numbers:
            raise ConfigError(f"{file}: the training split has no class {place[-2]!r}")
        with reading(str(file)):
            raw = file.read_bytes()
        stack.add(str(file), raw)
    labels = np.array([numbers[place[-2]] for place in places])
    owners = np.array([place[0] for place in places]) if len(places[0]) == 3 else None
    return Part(str(split), stack.images, labels, owners)
