"""Own data without moving a file: a CSV or Parquet table that lists images.

image       path, from the folder of the table if it is not absolute
split       train or test
label       0, good, normal or ok for a normal image; anything else is defective
category    default: the name of the table
defect      default: the label, or "defect" for 1
mask        path; black or empty for a normal image. Without the column: no pixel metrics
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.base import DataError
from benchmarks.parts.files import FileBenchmark, Published
from benchmarks.parts.inventory import nfc, printable
from benchmarks.parts.listed import Listed, listed_benchmark

ENDINGS = (".csv", ".parquet")
NEEDED = ("image", "split", "label")
NORMAL = ("0", "good", "normal", "ok", "false")


def is_manifest(path: Path) -> bool:
    """Whether a file is named like a table of images."""
    return path.suffix.lower() in ENDINGS and path.is_file()


def manifest_benchmark(name: str, path: Path) -> FileBenchmark:
    """The data set of a table; DataError, a line for each fault, where it can't be one."""
    rows = _rows(path)
    images = list(_listed(path, rows))
    names = Counter((image.split, image.category, image.name) for image in images)
    if twice := [name for (_, _, name), count in names.items() if count > 1]:
        raise DataError(f"{printable(path)}: lists {len(twice)} images twice, such as {twice[0]}")
    benchmark = listed_benchmark(Published(name, source="a table of the user's"), path, images)
    benchmark.mask_advice = f"name it in the column mask of {printable(path.name)}"
    benchmark.no_pixel_reason = "" if "mask" in rows[0] else f"{path.name} has no column mask"
    return benchmark


def _rows(path: Path) -> list[dict[str, Any]]:
    import polars as pl  # here, as `list` does without

    try:
        content = io.BytesIO(path.read_bytes())
        csv = path.suffix.lower() == ".csv"
        table = pl.read_csv(content, infer_schema=False) if csv else pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{printable(path)}: can't be read ({reason}); write a CSV or Parquet"
        ) from None
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise DataError(
            f"{printable(path)}: has no column {', '.join(missing)}; it needs {', '.join(NEEDED)}, "
            "and may have category, defect and mask"
        )
    if table.is_empty():
        raise DataError(f"{printable(path)}: lists no image")
    return table.to_dicts()


def _listed(path: Path, rows: list[dict[str, Any]]) -> Iterator[Listed]:
    for number, row in enumerate(rows, start=2):
        where = f"{printable(path)}, line {number}"
        values = {name: str(value or "").strip() for name, value in row.items()}
        values["label"] = str(row["label"]).strip().lower()
        if values["split"] not in ("train", "test"):
            raise DataError(f"{where}: split {values['split']!r}; write train or test")
        if not values["image"] or row["label"] is None:
            raise DataError(f"{where}: names no image or no label")
        normal = values["label"] in NORMAL
        if values["split"] == "train" and not normal:
            raise DataError(f"{where}: a defective image to train on; write label 0 or split test")
        said = "defect" if values["label"] in ("1", "true") else values["label"]
        defect = "good" if normal else nfc(values.get("defect") or said).replace("/", "-")
        category = nfc(values.get("category") or path.stem).replace("/", "-")
        mask = values.get("mask", "")
        masks = (path.parent / mask,) if mask else ()
        yield Listed(
            values["split"],
            category,
            defect,
            path.parent / values["image"],
            masks,
            values["image"].lstrip("./"),
        )
