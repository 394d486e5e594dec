"""Image files into one array of bytes, through Pillow, exactly or not at all.

What an image declares decides its channels, never what its pixels happen to be: grey, RGB and RGBA
stay as they are; one bit a pixel becomes 0 and 255; a palette becomes RGB; and whatever declares
transparency (grey with alpha, or a transparent colour, also of a palette) becomes RGBA. Images of
16 bits and files of several frames are refused. A camera's rotation tag (EXIF) is not applied;
`Stack.rotated` counts such images.
"""

import io
import warnings
from typing import Any

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.dataset import in_words
from fl.data.formats.reading import import_optional, reading
from fl.reproducibility.machine import fits

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # Pillow's other decoders are not let near the bytes
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA"}
_ORIENTATION = 0x0112  # EXIF's tag
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # its first bytes; the place of its bits a channel


class Stack:
    """Images of one size and mode, decoded one after another into an array made once."""

    def __init__(self, count: int) -> None:
        self._pillow = import_optional("PIL.Image")
        self._count = count
        self._filled = 0
        self.rotated = 0
        """Images whose rotation tag says that they lie or stand on their head."""
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
            width, height = image.size
            fits(f"{where}: its {width:,} x {height:,} pixels are", 4 * width * height)
            _check_exact(raw, image, where)
            pixels = channels_first(image, where)
            self.rotated += image.getexif().get(_ORIENTATION, 1) != 1
            if self._filled == 0:
                every = f"{where} and the others, {self._count:,} in all, of its size are"
                fits(every, self._count * pixels.nbytes)
                self._images = np.empty((self._count, *pixels.shape), np.uint8)
        if self._filled == self._count:
            raise ConfigError(f"{where} is one more than the {self._count:,} that were announced")
        if pixels.shape != self._images.shape[1:]:
            raise ConfigError(
                f"{where} holds {in_words(pixels.shape)}, those before it "
                f"{in_words(self._images.shape[1:])}; make all images one size and mode"
            )
        self._images[self._filled] = pixels
        self._filled += 1

    def _open(self, raw: bytes) -> Any:  # Pillow's image: imported only when needed
        """Open an image whose checksums are right: decoding alone does not look at a PNG's."""
        bomb = self._pillow.DecompressionBombWarning
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", bomb)
                with self._pillow.open(io.BytesIO(raw), formats=_FORMATS) as image:
                    image.verify()
        except bomb as error:
            pixels = self._pillow.MAX_IMAGE_PIXELS
            raise ValueError(f"it has more than {pixels:,} pixels ({error})") from None
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


def _check_exact(raw: bytes, image: Any, where: str) -> None:
    """Refuse what would lose something as one picture of 8 bits.

    Raises:
        ConfigError: 16 bits a channel, or several frames.
    """
    if raw.startswith(_PNG) and raw[_PNG_DEPTH] == 16:
        raise ConfigError(
            f"{where} has 16 bits a channel, and pictures are read with 8; bring arrays as float32 "
            "in an .npz file, or save it with 8 bits"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ConfigError(f"{where} has {frames} frames; save each that you want as one picture")


def _plain(image: Any, where: str) -> Any:
    """Return an image in mode L, RGB or RGBA, without loss."""
    if image.mode not in _MODES:
        raise ConfigError(f"{where} has mode {image.mode}; expected 8 bits of grey, RGB or RGBA")
    mode = "RGBA" if "transparency" in image.info else _MODES[image.mode]
    return image if image.mode == mode else image.convert(mode)
