"""VisA: twelve objects, from printed circuits to candles (Zou et al., ECCV 2022).

The split is the authors' one-class split, `split_csv/1cls.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Benchmark, Counts, DataError
from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, found_folder, listed_benchmark

SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
KNOWN = Published(
    "visa",
    "CC BY 4.0",
    "github.com/amazon-science/spot-diff (VisA_20220922.tar)",
    f"{SPLIT} and <object>/Data/Images/<Normal or Anomaly>",
    ("visa", "VisA", "VisA_20220922"),
    {
        "candle": Counts(900, 100, 100),
        "capsules": Counts(542, 60, 100),
        "cashew": Counts(450, 50, 100),
        "chewinggum": Counts(453, 50, 100),
        "fryum": Counts(450, 50, 100),
        "macaroni1": Counts(900, 100, 100),
        "macaroni2": Counts(900, 100, 100),
        "pcb1": Counts(904, 100, 100),
        "pcb2": Counts(901, 100, 100),
        "pcb3": Counts(905, 101, 100),
        "pcb4": Counts(904, 101, 100),
        "pipe_fryum": Counts(450, 50, 100),
    },
)


def open_visa(root: Path | None) -> Benchmark:
    """The images that the split names, in `root` or in a usual folder below it."""
    folder = found_folder(KNOWN, root, lambda folder: (folder / SPLIT).is_file())
    return listed_benchmark(KNOWN, folder, _images(folder))


def _images(folder: Path) -> Iterator[Listed]:
    with (folder / SPLIT).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if lacks := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise DataError(f"{folder / SPLIT}: has no column {', '.join(lacks)}; copy it again")
        for row in rows:
            normal = row["label"] == "normal"
            masks = () if normal or not row["mask"] else (folder / row["mask"],)
            defect = "good" if normal else "anomaly"
            yield Listed(row["split"], row["object"], defect, folder / row["image"], masks)


BENCHMARK = open_visa
