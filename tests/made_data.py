"""Miniatures of the MVTec layout for tests, and every data set opened over one."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.synthesis.pseudo import PseudoValidation, pseudo_validation
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


def opened(name: str, root: Path) -> Benchmark:
    """The data set over a miniature of its layout in `root`; real where it needs no root."""
    if name == "elpv" and importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("the package elpv-dataset is not installed")
    module = importlib.import_module(f"benchmarks.{name}")
    for seed, category in enumerate(sorted(getattr(module, "PUBLISHED", ()))[:2]):
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


@cache
def shapes_set(share: float = 0.5, seed: int = 0) -> PseudoValidation:
    return pseudo_validation(Shapes(), share=share, seed=seed, anomalies=3)


def noise_image(seed: int, size: int = 256) -> NDArray[np.uint8]:
    """Blocks of random colour: every fragment shows."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return blocks.repeat(size // 8, axis=0).repeat(size // 8, axis=1)
