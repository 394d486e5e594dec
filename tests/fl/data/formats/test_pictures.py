"""Pictures are read to the bit, with the channels that they declare, or refused."""

import io
import struct
import zlib

import pytest
from PIL import Image

from fl.config.parsing import ConfigError
from fl.data.formats import read
from fl.data.formats.pixels import Stack
from tests.fl.data.formats.test_faults import CLASSES, folder


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits: int, colour: int, pixels: bytes, more: bytes = b"") -> bytes:
    """Make a PNG of one pixel."""

    head = struct.pack(">IIBBBBB", 1, 1, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_sixteen_bits_are_never_cut_to_eight(tmp_path, refusal, colour):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw = png(16, colour, struct.pack(f">{channels}H", *[100] * channels))
    assert "16 bits a channel" in refusal(folder(tmp_path, {"train/ant/y.png": raw}))


def test_pictures_of_several_frames_and_other_models_of_colour_are_refused(tmp_path, refusal):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    for kind in ("png", "webp"):
        file = tmp_path / kind / f"train/ant/y.{kind}"
        folder(tmp_path / kind, {})
        frames[0].save(file, save_all=True, append_images=frames[1:])
        assert "has 2 frames" in refusal(tmp_path / kind)
    cmyk = Image.new("CMYK", (4, 4))
    said = refusal(folder(tmp_path / "cmyk", {"train/ant/a.jpg": cmyk}))
    assert "has mode CMYK" in said
    said = refusal(folder(tmp_path / "tiff", {"train/ant/a.tif": Image.new("F", (4, 4))}))
    assert "is no image" in said


@pytest.mark.parametrize(
    ("raw", "pixel"),
    [
        (png(8, 0, b"\x07", b"\0\0\0\x02tRNS\0\x07" + struct.pack(">I", zlib.crc32(b"tRNS\0\x07"))),
         (7, 7, 7, 0)),
        (png(8, 2, b"\1\2\3", b"\0\0\0\x06tRNS\0\1\0\2\0\4"
             + struct.pack(">I", zlib.crc32(b"tRNS\0\1\0\2\0\4"))), (1, 2, 3, 255)),
        (png(8, 4, b"\x07\xff"), (7, 7, 7, 255)),
        (png(8, 4, b"\x07\x10"), (7, 7, 7, 16)),
        (png(8, 6, b"\1\2\3\xff"), (1, 2, 3, 255)),
    ],
    ids=["grey, hidden", "colour, declared", "grey+alpha, opaque", "grey+alpha", "RGBA, opaque"],
)  # fmt: skip
def test_what_declares_transparency_has_four_channels(tmp_path, raw, pixel):
    files = {f"{s}/{c}/x.png": raw for s in ("train", "test") for c in CLASSES}
    found = read(folder(tmp_path, files))
    assert tuple(found.train.images[0, :, 0, 0].tolist()) == pixel


def test_translucent_and_opaque_pictures_of_one_mode_go_together(tmp_path):
    files = {f"{s}/{c}/x.png": png(8, 4, b"\x07\xff") for s in ("train", "test") for c in CLASSES}
    found = read(folder(tmp_path, {**files, "train/ant/y.png": png(8, 4, b"\x09\x10")}))
    assert found.train.images[:, :, 0, 0].tolist() == [
        [7] * 3 + [255],
        [9] * 3 + [16],
        [7] * 3 + [255],
    ]


def test_a_rotation_tag_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder(tmp_path, {})
    Image.new("L", (1, 1)).save(tmp_path / "train/ant/y.jpg", exif=exif)
    assert "1 with a rotation tag that was not applied" in read(tmp_path).source


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bmp(bits: int, pixels: bytes) -> bytes:
    """Make a BMP of two pixels in a row."""
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, bits, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + head + pixels


RED, FRAMES = Image.new("RGB", (1, 1), (255, 0, 0)), [Image.new("L", (4, 4), c) for c in (1, 2)]
PALETTE = chunk(b"PLTE", bytes(range(48)))
EXACT = {
    "grey of 1 bit": (png(1, 0, b"\x80"), [255]),
    "grey of 2 bits": (png(2, 0, b"\x40"), [85]),
    "grey of 4 bits": (png(4, 0, b"\x10"), [17]),
    "grey of 2 bits, hidden": (png(2, 0, b"\x40", chunk(b"tRNS", b"\0\1")), [85, 85, 85, 0]),
    "grey of 4 bits, hidden": (png(4, 0, b"\x10", chunk(b"tRNS", b"\0\1")), [17, 17, 17, 0]),
    "grey of 4 bits, seen": (png(4, 0, b"\x10", chunk(b"tRNS", b"\0\2")), [17, 17, 17, 255]),
    "grey, hidden by its low byte": (png(8, 0, b"\7", chunk(b"tRNS", b"\1\7")), [7, 7, 7, 0]),
    "colour, hidden by low bytes": (
        png(8, 2, b"\1\2\3", chunk(b"tRNS", b"\1\1\1\2\1\3")), [1, 2, 3, 0]),
    "a palette": (png(4, 3, b"\x20", PALETTE), [6, 7, 8]),
    "a palette, translucent": (
        png(8, 3, b"\1", PALETTE + chunk(b"tRNS", b"\xff\x10")), [3, 4, 5, 16]),
    "a palette, its end opaque": (
        png(8, 3, b"\2", PALETTE + chunk(b"tRNS", b"\0")), [6, 7, 8, 255]),
    "a scale of light that is not applied": (
        png(8, 0, b"\7", chunk(b"gAMA", struct.pack(">I", 45455))), [7]),
    "a BMP of 5 bits a channel": (bmp(16, b"\x1f\x7c\xe0\x03"), [255, 0, 255]),
    "a BMP with padding": (bmp(32, b"\1\2\3\xff\4\5\6\xff"), [3, 2, 1]),
    "tags that can't be read": (
        saved(Image.new("L", (1, 1), 7), "JPEG", exif=b"Exif\0\0II*\0no"), [7]),
    "a JPEG by PNG's name": (saved(Image.new("L", (1, 1), 7), "JPEG"), [7]),
}  # fmt: skip
LOSSY = {
    "a BMP with transparency": (bmp(32, b"\1\2\3\xff\4\5\6\x10"), "a fourth byte for each pixel"),
    "a PNG that moves": (
        saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "has 2 frames"),
    "a PNG that moves, and has a still": (
        saved(FRAMES[0], "PNG", save_all=True, default_image=True, append_images=FRAMES[1:]),
        "has 2 frames"),
    "a GIF": (saved(RED, "GIF"), "none of PNG, JPEG, BMP, WEBP"),
    "a TIFF of 16 bits": (saved(Image.new("I;16", (1, 1)), "TIFF"), "none of PNG, JPEG, BMP"),
    "a JPEG in CMYK": (saved(Image.new("CMYK", (1, 1)), "JPEG"), "has mode CMYK"),
    "a cut JPEG": (saved(Image.effect_noise((64, 64), 9), "JPEG")[:-99], "truncated"),
    "a page of the web": (b"<!DOCTYPE html><html>", "none of PNG, JPEG, BMP, WEBP"),
    "nothing": (b"", "none of PNG, JPEG, BMP, WEBP"),
}  # fmt: skip


def test_a_picture_is_read_to_the_bit_or_refused():
    for name, (raw, pixel) in EXACT.items():
        stack = Stack(1)
        stack.add(name, raw)
        assert stack.images[0, :, 0, 0].tolist() == pixel, name
    for name, (raw, said) in LOSSY.items():
        with pytest.raises(ConfigError, match=said):
            Stack(1).add(name, raw)


def test_rows_that_a_png_interlaces_come_in_order():
    stack = Stack(1)
    head = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    rows = chunk(b"IDAT", zlib.compress(b"\0\1\0\2\0\3\4"))
    stack.add("x", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b""))
    assert stack.images[0, 0].tolist() == [[1, 2], [3, 4]]
