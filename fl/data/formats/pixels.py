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
_BMP, _BMP_START, _BMP_DEPTH = b"BM", 10, 28  # the places of where pixels begin, and of its bits


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
        with reading(where), warnings.catch_warnings(), self._open(raw) as image:
            width, height = image.size
            fits(f"{where}: its {width:,} x {height:,} pixels are", 4 * width * height)
            _check_exact(raw, image, where)
            _scale_transparency(raw, image)
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
        """Open an image whose checksums are right: decoding alone does not look at a PNG's.

        What Pillow warns of is let pass, such as tags that can't be read, or else refused.
        """
        bomb = self._pillow.DecompressionBombWarning
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", bomb)
        try:
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
        ConfigError: 16 bits a channel, several frames, or a fourth channel that is not read.
    """
    if raw.startswith(_PNG) and raw[_PNG_DEPTH] == 16:
        raise ConfigError(
            f"{where} has 16 bits a channel, and pictures are read with 8; bring arrays as float32 "
            "in an .npz file, or save it with 8 bits"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ConfigError(f"{where} has {frames} frames; save each that you want as one picture")
    if image.mode == "RGB" and raw.startswith(_BMP) and raw[_BMP_DEPTH] == 32:
        start = int.from_bytes(raw[_BMP_START : _BMP_START + 4], "little")
        fourth = raw[start + 3 : start + 4 * image.size[0] * image.size[1] : 4]
        if len(set(fourth)) > 1:  # one value is padding
            raise ConfigError(
                f"{where} has a fourth byte for each pixel, which BMP does not say what to do with "
                "and which differs; if it is transparency, save it as PNG"
            )


def _scale_transparency(raw: bytes, image: Any) -> None:
    """Bring the transparent colour of a PNG to the scale of its pixels, 0 to 255.

    It is 16 bits a channel in the file, of which the lowest count, as many as a channel has: PNG
    (third edition), 11.3.1.1. Pillow does that for one bit and for palettes.
    """
    found = image.info.get("transparency")
    if not raw.startswith(_PNG) or image.mode not in ("L", "RGB"):
        return
    most = (1 << raw[_PNG_DEPTH]) - 1
    if isinstance(found, int):
        image.info["transparency"] = (found & most) * 255 // most
    elif isinstance(found, tuple):
        image.info["transparency"] = tuple(value & most for value in found)


def _plain(image: Any, where: str) -> Any:
    """Return an image in mode L, RGB or RGBA, without loss."""
    if image.mode not in _MODES:
        raise ConfigError(f"{where} has mode {image.mode}; expected 8 bits of grey, RGB or RGBA")
    mode = "RGBA" if "transparency" in image.info else _MODES[image.mode]
    return image if image.mode == mode else image.convert(mode)
