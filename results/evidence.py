"""What lies behind a cell's numbers: its curves over pixels, and pictures of its worst images.

Under the output folder lie `pixel_curves/<cell_id>.parquet` (points of ROC and PRO curves) and
`pictures/<cell_id>.parquet`, both written before the part that says that the cell is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from results.table import schema_of, write_rows

POINTS = 240
"""Of a curve: half of them evenly over the anomalous pixels, half densely where FPR is low."""
SAMPLED = 200_000
"""Normal pixels that thresholds are placed by; counts are of all pixels."""

MISS, ALARM = "miss", "false alarm"
"""A defective image with one of the lowest scores, a normal one with one of the highest."""

CURVES_SCHEMA = schema_of(
    {
        "cell_id": pa.string(),
        "category": pa.string(),
        "fpr": pa.float32(),  # share of the normal pixels at or above a threshold
        "tpr": pa.float32(),  # the same of the anomalous ones
        "pro": pa.float32(),  # the same of each region, averaged over regions
    }
)
PICTURES_SCHEMA = schema_of(
    {
        "cell_id": pa.string(),
        "category": pa.string(),
        "key": pa.string(),
        "defect": pa.string(),
        "kind": pa.string(),  # MISS or ALARM
        "score": pa.float64(),
        "image": pa.binary(),  # WebP, as all pictures
        "mask": pa.binary(),  # null where there is none to see
        "overlay": pa.binary(),  # the anomaly map over the image
        "licence": pa.string(),
        "source": pa.string(),
    },
    optional=("mask",),
)


class Evidence(NamedTuple):
    """Rows of CURVES_SCHEMA and PICTURES_SCHEMA of one cell; either may be empty."""

    curves: list[dict[str, Any]]
    pictures: list[dict[str, Any]]


def curves_path(out: Path, cell_id: str) -> Path:
    """Where a cell's curves over pixels lie."""
    return out / "pixel_curves" / f"{cell_id}.parquet"


def pictures_path(out: Path, cell_id: str) -> Path:
    """Where the pictures of a cell's worst images lie."""
    return out / "pictures" / f"{cell_id}.parquet"


def write_evidence(out: Path, cell_id: str, found: Evidence, *, replace: bool = False) -> None:
    """Publish what there is, each file whole or not at all; see `results.table.write_rows`."""
    if found.curves:
        write_rows(curves_path(out, cell_id), found.curves, CURVES_SCHEMA, replace=replace)
    if found.pictures:
        write_rows(pictures_path(out, cell_id), found.pictures, PICTURES_SCHEMA, replace=replace)


def read_curves(out: Path, cell_id: str) -> pl.DataFrame:
    """The points of a cell's curves; none where they were not kept."""
    return _read(curves_path(out, cell_id), CURVES_SCHEMA)


def read_pictures(out: Path, cell_id: str) -> pl.DataFrame:
    """The pictures of a cell; none where they were not kept."""
    return _read(pictures_path(out, cell_id), PICTURES_SCHEMA)


def curve_rows(
    cell_id: str, category: str, masks_NHW: NDArray[np.bool_], maps_NHW: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """The points of `pixel_curves` as rows of CURVES_SCHEMA; none where there is no curve."""
    points = pixel_curves(masks_NHW, maps_NHW) or {}
    return [
        {
            "cell_id": cell_id,
            "category": category,
            **dict(zip(points, map(float, point), strict=True)),
        }
        for point in zip(*points.values(), strict=True)
    ]


def pixel_curves(
    masks_NHW: NDArray[np.bool_], maps_NHW: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]] | None:
    """fpr, tpr and pro, (P,) each, from (0, 0, 0) to (1, 1, 1), P at most POINTS + 2.

    Each point is exact: the thresholds alone are a choice, all pixels are counted at them, one
    image at a time. None where there are no anomalous or no normal pixels.
    """
    anomalous = maps_NHW[masks_NHW]
    if not len(anomalous) or len(anomalous) == masks_NHW.size:
        return None
    thresholds = _thresholds(anomalous, maps_NHW, masks_NHW)
    counts = np.zeros((3, len(thresholds) + 1))
    for mask, scores in zip(masks_NHW, maps_NHW, strict=True):
        # A pixel in bin b is at or above the first b thresholds.
        bins = np.searchsorted(thresholds, scores.ravel(), side="right").reshape(scores.shape)
        counts[0] += np.bincount(bins[~mask], minlength=len(thresholds) + 1)
        if mask.any():
            counts[1] += np.bincount(bins[mask], minlength=len(thresholds) + 1)
            counts[2] += np.bincount(bins[mask], _shares(mask), minlength=len(thresholds) + 1)
    above = np.cumsum(counts[:, ::-1], axis=1)
    above /= above[:, -1:].copy()  # normal pixels, anomalous ones, regions: so each ends in 1
    above = np.concatenate((np.zeros((3, 1)), above[:, :-1], np.ones((3, 1))), axis=1)
    return dict(zip(("fpr", "tpr", "pro"), above, strict=True))


def _thresholds(
    anomalous: NDArray[np.float32], maps_NHW: NDArray[np.float32], masks_NHW: NDArray[np.bool_]
) -> NDArray[np.float32]:
    every = max(1, masks_NHW.size // SAMPLED)
    # A step that shares no factor with the images' width, or a few columns would stand for all.
    step = next(n for n in range(every, 2 * every + 2) if np.gcd(n, masks_NHW.shape[-1]) == 1)
    normal = maps_NHW.reshape(-1)[::step][~masks_NHW.reshape(-1)[::step]]
    share = np.linspace(0, 1, POINTS // 2)
    chosen = [np.quantile(anomalous, share, method="nearest")]
    if len(normal):
        chosen.append(np.quantile(normal, 1 - share**2, method="nearest"))
    return np.unique(np.concatenate(chosen))


def _shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What share of its 8-connected region each anomalous pixel is."""
    from scipy import ndimage  # here, so that reading needs none

    regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    members = regions[mask]
    shares: NDArray[np.float64] = 1 / np.bincount(members)[members]
    return shares


def _read(path: Path, schema: pa.Schema) -> pl.DataFrame:
    empty = pl.DataFrame(schema.empty_table())
    if not path.exists():
        return empty
    try:
        return pl.read_parquet(path).select(empty.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it") from error
