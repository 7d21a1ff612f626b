"""Miniatures of the MVTec layout for tests, and every data set opened over one."""

from __future__ import annotations

import importlib
import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from benchmarks.shapes import Shapes


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, size: tuple[int, int] = (12, 10), value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    marks = np.zeros((height, width), dtype=np.uint8)
    marks[2:5, 3:6] = value
    Image.fromarray(marks).save(path)


def write_category(folder: Path, seed: int = 0) -> None:
    for number in range(4):
        write_image(folder / f"train/good/{number:03d}.png", seed + number)
    for number in range(2):
        write_image(folder / f"test/good/{number:03d}.png", seed + 10 + number)
        write_image(folder / f"test/crack/{number:03d}.png", seed + 20 + number)
        write_mask(folder / f"ground_truth/crack/{number:03d}_mask.png")


def write_visa(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        images, masks = f"{category}/Data/Images", f"{category}/Data/Masks/Anomaly"
        for number in range(6):
            split = "train" if number < 4 else "test"
            write_image(root / images / f"Normal/{number:04d}.JPG", number + len(category))
            rows.append(f"{category},{split},normal,{images}/Normal/{number:04d}.JPG,")
        for number in range(2):
            write_image(root / images / f"Anomaly/{number:03d}.JPG", 20 + number + len(category))
            write_mask(root / masks / f"{number:03d}.png", value=1)
            image, mask = f"{images}/Anomaly/{number:03d}.JPG", f"{masks}/{number:03d}.png"
            rows.append(f"{category},test,anomaly,{image},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")


def write_btad(root: Path) -> None:
    for seed, product in enumerate(("01", "02")):
        for number in range(4):
            write_image(root / product / f"train/ok/{number:04d}.bmp", 50 * seed + number)
        for number in range(2):
            write_image(root / product / f"test/ok/{number:04d}.bmp", 50 * seed + 10 + number)
            write_image(root / product / f"test/ko/{number:04d}.png", 50 * seed + 20 + number)
            write_mask(root / product / f"ground_truth/ko/{number:04d}.bmp")


def write_loco(root: Path) -> None:
    for seed, category in enumerate(("pushpins", "screw_bag")):
        folder = root / category
        for number in range(4):
            write_image(folder / f"train/good/{number:03d}.png", 50 * seed + number)
        write_image(folder / "validation/good/000.png", 50 * seed + 9)
        write_image(folder / "test/good/000.png", 50 * seed + 10)
        for kind in ("logical_anomalies", "structural_anomalies"):
            write_image(folder / f"test/{kind}/000.png", 50 * seed + 20 + len(kind))
            for mask in range(2):
                write_mask(folder / f"ground_truth/{kind}/000/{mask:03d}.png")


def write_mvtec2(root: Path) -> None:
    for seed, category in enumerate(("can", "rice")):
        folder = root / category
        for number in range(4):
            write_image(folder / f"train/good/{number:03d}.png", 50 * seed + number)
        for number in range(2):
            write_image(folder / f"test_public/good/{number:03d}.png", 50 * seed + 10 + number)
            write_image(folder / f"test_public/bad/{number:03d}.png", 50 * seed + 20 + number)
            write_mask(folder / f"test_public/ground_truth/bad/{number:03d}_mask.png")
        write_image(folder / "test_private/000.png", 50 * seed + 30)


def write_real_iad(root: Path) -> None:
    for seed, category in enumerate(("audiojack", "toy")):
        folder = root / "realiad_256" / category
        listed: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for number in range(6):
            path = f"OK/S{number:04d}/{category}_{number:04d}_OK_C1.jpg"
            write_image(folder / path, 50 * seed + number)
            row = {"anomaly_class": "OK", "image_path": path, "mask_path": None}
            listed["train" if number < 4 else "test"].append(row)
        for number in range(2):
            path = f"NG/AK/S{number:04d}/{category}_{number:04d}_NG_AK_C1"
            write_image(folder / f"{path}.jpg", 50 * seed + 20 + number)
            write_mask(folder / f"{path}.png")
            row = {"anomaly_class": "AK", "image_path": f"{path}.jpg", "mask_path": f"{path}.png"}
            listed["test"].append(row)
        file = root / "realiad_jsons/realiad_jsons" / f"{category}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"meta": {"prefix": f"{category}/"}, **listed}))


def write_kolektorsdd2(root: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        for number in range(5):
            write_image(root / split / f"{number:05d}.png", 50 * seed + number)
            write_mask(root / split / f"{number:05d}_GT.png", value=255 if number == 4 else 0)


WRITERS = {
    "visa": write_visa,
    "btad": write_btad,
    "mvtec_loco": write_loco,
    "mvtec2": write_mvtec2,
    "real_iad": write_real_iad,
    "kolektorsdd2": write_kolektorsdd2,
}
"""Miniatures of layouts that are not MVTec's."""


def opened(name: str, root: Path) -> Benchmark:
    """The data set over a miniature of its layout in `root`; real where it needs no root."""
    if name == "elpv" and importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("the package elpv-dataset is not installed")
    module = importlib.import_module(f"benchmarks.{name}")
    if name in WRITERS:
        WRITERS[name](root)
    elif (known := getattr(module, "KNOWN", None)) and known.usual_folders:
        for seed, category in enumerate(sorted(known.counts)[:2]):
            write_category(root / category, seed=100 * seed)
    benchmark = module.BENCHMARK(root)
    assert isinstance(benchmark, Benchmark)
    return benchmark


def few(tmp_path: Path, images: int) -> Benchmark:
    for number in range(images):
        write_image(tmp_path / f"widget/train/good/{number}.png", seed=number)
    return folder_benchmark("mine", tmp_path)


def anomalies(pseudo: PseudoValidation, category: str | None = None) -> list[Sample]:
    samples = pseudo.validation(None if category is None else [category])
    return [sample for sample in samples if sample.anomalous]


SMOOTH = ("disc", "gear", "screw")
"""Rendered products without the grain of a weave: every anomaly can be seen on them."""


@cache
def shapes_set(share: float = 0.5, seed: int = 0) -> PseudoValidation:
    return PseudoValidation(Shapes(), SMOOTH, share=share, seed=seed, anomalies=3)


def noise_image(seed: int, size: int = 256) -> NDArray[np.uint8]:
    """Blocks of random colour: every fragment shows."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return blocks.repeat(size // 8, axis=0).repeat(size // 8, axis=1)
