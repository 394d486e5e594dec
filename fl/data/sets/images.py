"""From the files of packages to images: CIFAR-10, Fashion-MNIST, digits, emoji."""

import gzip
import io
import json
from typing import Literal

import numpy as np
import torch

from fl.data.dataset import Split
from fl.data.names import EMOJI
from fl.data.sets.packages import Files
from fl.reproducibility.seeds import stream

SEED = 20261121
"""Draws every split that does not come with its data."""

Parts = tuple[Split, Split]
"""The training and the test split."""


def cifar10(files: Files) -> Parts:
    """Read CIFAR-10 from sheets of 1024 x N pixels, in which a row is an image, row by row."""

    def split(labels: str, *sheets: str) -> Split:
        pixels = np.concatenate(
            [_pixels(files[f"package/{s}.png"], "RGB").reshape(-1, 32, 32, 3) for s in sheets]
        )
        return to_split(np.moveaxis(pixels, 3, 1), json.loads(files[f"package/{labels}.json"]))

    # The package spells "labels" so.
    train = split("train_lables", *(f"data_batch_{number}" for number in range(1, 6)))
    return train, split("test_lables", "test_batch")


def fashion_mnist(files: Files) -> Parts:
    """Read Fashion-MNIST from its IDX files: a header of 16 (labels: 8) bytes, then the values."""

    def split(name: str) -> Split:
        folder = "usr/share/datasets/fashion-mnist"
        images = gzip.decompress(files[f"{folder}/{name}-images-idx3-ubyte.gz"])
        labels = gzip.decompress(files[f"{folder}/{name}-labels-idx1-ubyte.gz"])
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        return to_split(pixels, np.frombuffer(labels, np.uint8, offset=8))

    return split("train"), split("t10k")


def mnist_10k(files: Files) -> Parts:
    """Read digits stored as x / 255 with three decimals; the last 150 of each class are the test.

    The package keeps the order of MNIST, whose neighbours are often of one writer: the end of a
    class, rather than a random draw, puts few writers into both splits.
    """
    digits = [
        np.rint(np.array(json.loads(files[f"package/src/digits/{digit}.json"])["data"]) * 255)
        .astype(np.uint8)
        .reshape(-1, 1, 28, 28)
        for digit in range(10)
    ]

    def split(chosen: slice) -> Split:
        parts = [images[chosen] for images in digits]
        return to_split(np.concatenate(parts), np.repeat(np.arange(10), [len(p) for p in parts]))

    return shuffled((split(slice(None, -150)), split(slice(-150, None))), "mnist-10k")


def digits(files: Files) -> Parts:
    """Read scikit-learn's digits, 64 values of 0 to 16 and a label a line; a fifth is the test."""
    text = gzip.decompress(files["sklearn/datasets/data/digits.csv.gz"]).decode()
    table = np.loadtxt(io.StringIO(text), delimiter=",").astype(np.uint8)
    images, labels = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64]
    test = _a_fifth_of_each(labels, "digits")
    return to_split(images[~test], labels[~test]), to_split(images[test], labels[test])


def emoji(files: Files) -> Parts:
    """Read emoji that both vendors draw, on white, 32x32; the test is a fifth of the code points.

    Both vendors share the split, so that no test symbol was seen from the other's hand. `Component`
    (skin tones and hair alone) and variants by skin tone are left out.
    """
    shown = [
        symbol
        for symbol in json.loads(files["package/emoji.json"])
        if symbol["category"] in EMOJI and symbol["has_img_google"] and symbol["has_img_twitter"]
    ]
    labels = np.array([EMOJI.index(symbol["category"]) for symbol in shown])
    test = np.tile(_a_fifth_of_each(labels, "emoji"), 2)
    images = np.stack(
        [
            _on_white(files[f"package/img/{vendor}/64/{symbol['image']}"])
            for vendor in ("google", "twitter")
            for symbol in shown
        ]
    )
    labels, domains = np.tile(labels, 2), np.repeat([0, 1], len(shown))
    parts = (
        to_split(images[~test], labels[~test], domains[~test]),
        to_split(images[test], labels[test], domains[test]),
    )
    return shuffled(parts, "emoji")


def to_split(images: np.ndarray, labels: object, domains: np.ndarray | None = None) -> Split:
    """Return arrays as the tensors of a split."""
    return Split(
        torch.from_numpy(np.array(images, order="C")),
        torch.tensor(np.asarray(labels), dtype=torch.int64),
        None if domains is None else torch.tensor(domains, dtype=torch.int64),
    )


def shuffled(parts: Parts, name: str) -> Parts:
    """Put both splits into an order drawn by the streams (SEED, name, "train" | "test").

    For data that come class by class, which neither a deal nor a batch should depend on.
    """
    orders = (
        torch.from_numpy(stream(SEED, name, split).permutation(len(part)))
        for split, part in zip(("train", "test"), parts, strict=True)
    )
    train, test = (
        Split(
            part.images[order],
            part.labels[order],
            None if part.domains is None else part.domains[order],
        )
        for part, order in zip(parts, orders, strict=True)
    )
    return train, test


def _a_fifth_of_each(labels: np.ndarray, name: str) -> np.ndarray:
    """Return a mask of a fifth of every class, drawn by the stream (SEED, name, "fifth")."""
    rng, chosen = stream(SEED, name, "fifth"), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        chosen[rng.choice(places, round(len(places) / 5), replace=False)] = True
    return chosen


def _pixels(png: bytes, mode: Literal["RGB", "RGBA"]) -> np.ndarray:
    """Decode a PNG into (height, width, channels) bytes."""
    from PIL import Image  # optional, and only wanted here

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert(mode))


def _on_white(png: bytes) -> np.ndarray:
    """Return a 64x64 RGBA image as (3, 32, 32): over white, then means of 2x2 pixels."""
    pixels = _pixels(png, "RGBA").astype(np.int64)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    sums = colour * alpha + 255 * (255 - alpha)
    sums = sums.reshape(32, 2, 32, 2, 3).sum((1, 3))
    return np.moveaxis((sums + 510) // 1020, 2, 0).astype(np.uint8)
