"""Conversion rules with golden pixel values; limits; the views a model sees."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from pathlib import Path
from runpy import run_path
from types import ModuleType

import numpy as np
import pytest
from made_data import write_category, write_image, write_mask
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts import decode
from benchmarks.parts.content import check
from benchmarks.parts.decode import image_shape, read_marks, read_rgb
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.images import load_masks, load_views, vanished
from benchmarks.shapes import BENCHMARK as open_shapes


def row(*pixels: object, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([pixels], dtype=dtype))


def grey(*levels: int) -> list[tuple[int, int, int]]:
    return [(level, level, level) for level in levels]


PALETTE = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
PALETTE.putpalette([10, 20, 30, 200, 100, 50, 255, 255, 255])
INKS = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
DEEP = row(0, 128, 129, 257, 32896, 65535, dtype=np.uint16)
GOLDEN = {
    "grey.png": (row(0, 7, 255), {}, grey(0, 7, 255)),
    "bit.png": (row(True, False, dtype=np.bool_), {}, grey(255, 0)),
    "16bit.png": (DEEP, {}, grey(0, 0, 1, 1, 128, 255)),
    "16bit.tif": (DEEP, {}, grey(0, 0, 1, 1, 128, 255)),
    "above-white.tif": (row(0, 65535, 1_000_000, dtype=np.int32), {}, grey(0, 255, 255)),
    "palette.png": (PALETTE, {}, [(10, 20, 30), (200, 100, 50), (255, 255, 255)]),
    "clear-palette.png": (
        PALETTE, {"transparency": bytes([255, 0, 255])}, [(10, 20, 30), (0, 0, 0), (255, 255, 255)],
    ),
    "rgba.png": (
        row([200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]), {},
        [(200, 100, 50), (0, 0, 0), (100, 50, 25)],
    ),
    "la.png": (row([200, 255], [200, 0]), {}, grey(200, 0)),
    "key.png": (row([9, 9, 9], [8, 8, 8]), {"transparency": (9, 9, 9)}, grey(0, 8)),
    "cmyk.tif": (
        Image.frombytes("CMYK", (3, 1), INKS.tobytes()), {},
        [(255, 255, 255), (0, 255, 255), (0, 0, 0)],
    ),
}  # fmt: skip
"""File -> image, how it is saved, and the pixels that are read: alpha lies on black, and 16 bits of
grey are divided by 257."""


@pytest.mark.parametrize("name", GOLDEN)
def test_an_image_is_read_as_these_pixels_without_a_warning(tmp_path: Path, name: str) -> None:
    image, options, pixels = GOLDEN[name]
    image.save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_rgb(tmp_path / name)
    assert read.dtype == np.uint8
    assert [tuple(pixel) for pixel in read[0].tolist()] == pixels


def _png(values: np.ndarray) -> bytes:
    """(H, W, C) uint16 as a PNG, by its specification: Pillow writes none of 16 bits a colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _tiff(values: np.ndarray, order: str, compressed: bool) -> bytes:
    """(H, W, 3) uint16 as a TIFF of one strip, in either byte order."""
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compressed else data
    end, at = struct.pack(f"{order}3H", 16, 16, 16), 8 + 2 + 9 * 12 + 4
    height, width = values.shape[:2]
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at)]
    entries += [(259, 3, 1, 8 if compressed else 1), (262, 3, 1, 2), (273, 4, 1, at + len(end))]
    entries += [(277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))]
    packed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + struct.pack(f"{order}I" if kind == 4 or count > 1 else f"{order}HH", *(
            (value,) if kind == 4 or count > 1 else (value, 0)
        ))
        for tag, kind, count, value in entries
    )  # fmt: skip
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return start + packed + struct.pack(f"{order}I", 0) + end + data


@pytest.mark.parametrize("kind", ["png", "tiff <", "tiff >", "tiff < z", "tiff > z"])
def test_sixteen_bits_a_colour_keep_them(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (5, 7, 3)).astype(np.uint16)
    path = tmp_path / f"deep.{kind[:4].strip()}"
    order = kind.split()[1] if " " in kind else ""
    path.write_bytes(_tiff(values, order, kind.endswith("z")) if order else _png(values))
    assert (
        read_rgb(path, lambda: 4095).tolist() == np.rint(values / 4095 * 255).astype(int).tolist()
    )
    assert decode.deepest(path) == values.max()
    assert decode.losses(path) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_colour_stands_upright_and_on_black(tmp_path: Path, orientation: int) -> None:
    values = np.full((4, 6, 4), 65535, np.uint16)
    values[:, :2, 3] = 0  # transparent
    values[0, 5] = (32768, 0, 0, 65535)
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = _png(values)
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "deep.png").write_bytes(whole[:33] + chunk + whole[33:])
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    eight.save(tmp_path / "eight.png", exif=exif)
    got, wanted = read_rgb(tmp_path / "deep.png"), read_rgb(tmp_path / "eight.png")
    assert got.shape == wanted.shape == (*image_shape(tmp_path / "deep.png"), 3)
    assert np.abs(got.astype(int) - wanted).max() <= 1


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    grey = Image.fromarray(np.zeros((4, 4), np.uint8))
    pages = tmp_path / "pages.tif"
    grey.save(pages, save_all=True, append_images=[grey, grey])
    assert decode.losses(pages) == ["of 3 pages or frames the first is read"]
    for alpha, said in ((255, []), (200, ["what is transparent becomes black"])):
        Image.new("RGBA", (3, 3), (1, 2, 3, alpha)).save(tmp_path / "alpha.png")
        assert decode.losses(tmp_path / "alpha.png") == said
    Image.new("CMYK", (3, 3)).save(tmp_path / "ink.tif")
    assert decode.losses(tmp_path / "ink.tif")[0].startswith("CMYK becomes RGB")
    grey.save(tmp_path / "plain.png")
    assert decode.losses(tmp_path / "plain.png") == []


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    stored = np.zeros((8, 16, 3), dtype=np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(stored).save(path, exif=exif, quality=100)
    upright = np.rot90(stored, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    image = read_rgb(path)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() < 12
    assert image_shape(path) == upright.shape[:2]


@pytest.mark.parametrize("orientation, size", [(6, (16, 8)), (6, (8, 8)), (3, (16, 8))])
def test_masks_of_images_that_exif_turns(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    """A mask of the unturned image is refused by its size, or asked about where that can't tell."""
    for folder in ("train/good", "test/crack"):
        write_image(tmp_path / "bolt" / folder / "0.jpg", size=size)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(tmp_path / "bolt/test/crack/0.jpg") as image:
        image.save(tmp_path / "bolt/test/crack/0.jpg", exif=exif)
    truth = tmp_path / "bolt/ground_truth/crack/0_mask.png"
    write_mask(truth, size=size)
    data = folder_benchmark("mine", tmp_path)
    [line] = check(data, data.test())
    assert "EXIF" in line and "turn the mask too" in line
    with Image.open(truth) as mask:
        upright = mask.copy()
    upright.save(truth, exif=exif)
    assert check(data, data.test()) == []
    upright.transpose(Image.Transpose.ROTATE_90).save(truth)
    assert (check(data, data.test()) == []) == (orientation == 6 and size != (8, 8))


def test_heic_is_read_where_pillow_heif_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    there = ModuleType("pillow_heif")
    there.register_heif_opener = lambda: told.append("Pillow")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", there)
    assert ".heic" in run_path(decode.__file__)["ENDINGS"] and told == ["Pillow"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert ".heic" not in run_path(decode.__file__)["ENDINGS"]


def test_marks_are_whatever_is_above_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.array([[0, 1, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "bit.png")
    rgba = [[[255, 255, 255, 0], [0, 0, 9, 255], [255, 0, 0, 255]]]
    Image.fromarray(np.array(rgba, dtype=np.uint8)).save(tmp_path / "rgba.png")
    for name in ("grey", "deep", "bit", "rgba"):
        assert read_marks(tmp_path / f"{name}.png").tolist() == [[False, True, True]]


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut.{ending}"
    write_image(path, size=(64, 48))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"cut\.{ending}: is (damaged|not an image)"):
        read_rgb(path)


@pytest.mark.parametrize("kind, wrong", [("f4", -0.1), ("f4", np.nan), ("f4", np.inf), ("i4", -5)])
def test_pixels_that_are_no_light_are_refused(tmp_path: Path, kind: str, wrong: float) -> None:
    Image.fromarray(np.array([[0, 1, wrong]], dtype=kind)).save(tmp_path / "odd.tif")
    with pytest.raises(DataError, match=r"odd\.tif: has pixels that are negative or no numbers"):
        read_rgb(tmp_path / "odd.tif")


@pytest.mark.parametrize(
    ("white", "said"),
    [(None, ""), (1.0, ""), (0.5, ""), (4095.0, "save it as the training images are")],
)
def test_floats_are_of_the_scale_of_the_training_images(
    tmp_path: Path, white: float | None, said: str
) -> None:
    path = tmp_path / "floats.tif"
    Image.fromarray(np.array([[0, 0.25, 0.5]], np.float32)).save(path)
    if said:
        with pytest.raises(DataError, match=said):
            read_rgb(path, lambda: white)
    else:
        wanted = np.rint(255 * np.array([0, 0.25, 0.5]) / (white or 1))
        assert read_rgb(path, lambda: white)[0, :, 0].tolist() == wanted.tolist()
    Image.fromarray(np.array([[0, 7, 900]], np.float32)).save(path)
    with pytest.raises(DataError, match="floats up to 900, and training images have 8 bits"):
        read_rgb(path)


def test_an_image_that_is_not_read_is_no_other_file(tmp_path: Path) -> None:
    """Also not as the small preview within a raw file, which is a TIFF."""
    for name, what in (("a.HEIC", "a HEIC photograph"), ("a.dng", "the raw file of a camera")):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "TIFF")
        with pytest.raises(DataError, match=f"{name}: is {what}, which is not read; convert it"):
            read_rgb(tmp_path / name)


def test_a_folder_named_like_an_image_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "dir.png").mkdir()
    for name in ("dir.png", "gone.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read"):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize("side", [8_950, 9_500, 14_000])
def test_bombs_are_named_within_and_beyond_pillows_own_limits(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        with pytest.raises(DataError, match=r"has more than 80,000,000 pixels"):
            read_rgb(path)
    assert not seen


def test_views_are_resized_and_cut_at_the_centre(tmp_path: Path) -> None:
    left = np.zeros((8, 8, 3), dtype=np.uint8)
    left[:, :4, 0] = 200
    folder = tmp_path / "widget/train/good"
    folder.mkdir(parents=True)
    Image.fromarray(left).save(folder / "000.png")
    write_image(folder / "001.png", size=(30, 20))
    data = folder_benchmark("mine", tmp_path)
    views = load_views(data, data.train(), 8, 4)
    assert views.shape == (2, 3, 4, 4)
    assert views.dtype == np.uint8
    assert views[0, 0].tolist() == [[200, 200, 0, 0]] * 4
    assert load_views(data, data.train(), 16).shape == (2, 3, 16, 16)
    assert load_views(data, [], 16).shape == (0, 3, 16, 16)
    for crop in (0, 9):
        with pytest.raises(ValueError, match="does not fit into resize 8"):
            load_views(data, data.train(), 8, crop)


def test_masks_are_resized_nearest_and_may_vanish(tmp_path: Path) -> None:
    write_category(tmp_path / "widget")
    point = np.zeros((10, 12), dtype=np.uint8)
    point[0, 0] = 255
    Image.fromarray(point).save(tmp_path / "widget/ground_truth/crack/001_mask.png")
    data = folder_benchmark("mine", tmp_path)
    test = data.test()
    masks = load_masks(data, test, 5)
    assert masks is not None
    assert masks.shape == (4, 5, 5)
    assert masks.dtype == bool
    assert masks[0].any()
    assert not masks[2:].any()
    assert vanished(test, masks) == ["widget/test/crack/001.png"]
    assert test[1].anomalous
    assert load_masks(data, test, 5, 3).shape == (4, 3, 3)  # type: ignore[union-attr]


def test_masks_follow_the_same_cut_as_views() -> None:
    shapes = open_shapes(None)
    samples = [sample for sample in shapes.test() if sample.anomalous][:4]
    whole, cut = load_masks(shapes, samples, 128), load_masks(shapes, samples, 128, 96)
    views, inner = load_views(shapes, samples, 128), load_views(shapes, samples, 128, 96)
    assert whole is not None
    assert cut is not None
    assert (whole[:, 16:112, 16:112] == cut).all()
    assert (views[:, :, 16:112, 16:112] == inner).all()
    assert (whole[0] == shapes.read_mask(samples[0])).all()


def test_a_smooth_mask_shrinks_with_its_threshold(tmp_path: Path) -> None:
    write_category(tmp_path / "part")
    benchmark = folder_benchmark("parts", tmp_path)
    defective = [sample for sample in benchmark.test() if sample.anomalous]

    def marked(above: float, smooth: bool = True) -> int:
        masks = load_masks(benchmark, defective, 7, smooth=smooth, above=above)
        assert masks is not None
        return int(masks.sum())

    # A mask of 3 x 3 of 12 x 10 pixels, made smaller: any grey, more than half, full white.
    assert marked(0) > marked(127.5) > marked(254)
    assert marked(0, smooth=False) == marked(254, smooth=False) > 0
