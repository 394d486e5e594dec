"""Image files into one array of bytes, through Pillow.

Grey, RGB and RGBA stay as they are; one bit a pixel becomes 0 and 255, a palette becomes RGB, and
grey with alpha grey. Alpha that hides something is kept, so such an image becomes RGBA. A camera's
rotation tag (EXIF) is not applied.
"""

import io
from typing import Any

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.reading import import_optional, reading

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # Pillow's other decoders are not let near the bytes
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}


class Stack:
    """Images of one size and mode, decoded one after another into an array made once."""

    def __init__(self, count: int) -> None:
        self._pillow = import_optional("PIL.Image")
        self._count = count
        self._filled = 0
        self._images = np.empty((0, 1, 1, 1), np.uint8)

    @property
    def images(self) -> np.ndarray:
        """(images, channels, height, width), those added so far."""
        return self._images[: self._filled]

    def add(self, where: str, raw: bytes) -> None:
        """Decode an image file's bytes and append the image.

        Raises:
            ConfigError: it can't be decoded, or is of another size or mode than the first.
        """
        with reading(where), self._open(raw) as image:
            pixels = channels_first(image, where)
            if self._filled == 0:
                self._images = np.empty((self._count, *pixels.shape), np.uint8)
        if pixels.shape != self._images.shape[1:]:
            raise ConfigError(
                f"{where} has (channels, height, width) {pixels.shape}, those before it "
                f"{self._images.shape[1:]}; make all images one size and mode"
            )
        self._images[self._filled] = pixels
        self._filled += 1

    def _open(self, raw: bytes) -> Any:  # Pillow's image: imported only when needed
        """Open an image whose checksums are right: decoding alone does not look at a PNG's."""
        try:
            with self._pillow.open(io.BytesIO(raw), formats=_FORMATS) as image:
                image.verify()
        except self._pillow.UnidentifiedImageError:  # whose message is an address in memory
            raise ValueError(f"it is none of {', '.join(_FORMATS)}") from None
        return self._pillow.open(io.BytesIO(raw), formats=_FORMATS)


def channels_first(image: Any, where: str) -> np.ndarray:
    """Return the pixels of one of Pillow's images, (channels, height, width).

    Raises:
        ConfigError: they are not 8 bits of grey, RGB or RGBA.
    """
    pixels = np.asarray(_plain(image, where))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _plain(image: Any, where: str) -> Any:
    """Return an image in mode L, RGB or RGBA, without loss."""
    if image.mode in ("LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] < 255:
            return rgba
        return rgba.convert("L" if image.mode == "LA" else "RGB")
    if image.mode not in _MODES:
        raise ConfigError(f"{where} has mode {image.mode}; expected 8 bits of grey, RGB or RGBA")
    mode = _MODES[image.mode]
    return image if image.mode == mode else image.convert(mode)
