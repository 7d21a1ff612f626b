"""The evidence behind a cell's numbers: its curves over pixels, and pictures of some images.

Under the output folder lie `pixel_curves/<cell_id>.parquet` (points of ROC and PRO curves) and
`pictures/<cell_id>.parquet`. Both are written before the part that marks the cell as done.

Shapes: N images of H x W pixels, A anomalous pixels, T thresholds, P points of a curve.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from results.metrics import region_sizes
from results.table import read_part, schema_of, write_rows

POINTS = 240
"""Thresholds of a curve: half evenly over the anomalous pixels, half densely where FPR is low."""
SAMPLED = 200_000
"""Number of normal pixels, about, that place the thresholds; counts are of all pixels."""

MISS, ALARM, FOUND, COMMON = "miss", "false alarm", "found", "common"
"""A defective image with one of the lowest scores, a normal one with one of the highest, a
defective one with one of the highest; one chosen without scores, so that all methods have it."""

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
        "kind": pa.string(),  # MISS, ALARM, FOUND or COMMON; each image once
        "score": pa.float64(),
        "image": pa.binary(),  # WebP, as all pictures
        "mask": pa.binary(),  # null where there is none to see
        "map": pa.binary(),  # grey: black at `low` and below, white from `high`
        "low": pa.float64(),  # the category's median
        "high": pa.float64(),
        # As many images have a peak above it as are called defective where F1 is highest.
        "level": pa.float64(),
        "licence": pa.string(),
        "source": pa.string(),
    },
    optional=("mask",),
)


class Evidence(NamedTuple):
    """Rows of CURVES_SCHEMA and PICTURES_SCHEMA of one cell; either may be empty."""

    curves: list[dict[str, Any]]
    pictures: list[dict[str, Any]]


def pictures_path(out: Path, cell_id: str) -> Path:
    """The file of a cell's pictures."""
    return out / "pictures" / f"{cell_id}.parquet"


def _curves_path(out: Path, cell_id: str) -> Path:
    return out / "pixel_curves" / f"{cell_id}.parquet"


def write_evidence(out: Path, cell_id: str, evidence: Evidence, *, replace: bool = False) -> None:
    """Publish curves and pictures, where there are any, as `results.table.write_rows` does."""
    curves, pictures = evidence
    if curves:
        write_rows(_curves_path(out, cell_id), curves, CURVES_SCHEMA, replace=replace)
    if pictures:
        write_rows(pictures_path(out, cell_id), pictures, PICTURES_SCHEMA, replace=replace)


def read_curves(out: Path, cell_id: str) -> pl.DataFrame:
    """The points of a cell's curves; no rows where there is no file."""
    return _read(_curves_path(out, cell_id), CURVES_SCHEMA)


def read_pictures(out: Path, cell_id: str) -> pl.DataFrame:
    """The pictures of a cell; no rows where there is no file."""
    return _read(pictures_path(out, cell_id), PICTURES_SCHEMA)


def curve_rows(
    cell_id: str, category: str, masks_NHW: NDArray[np.bool_], maps_NHW: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """The points of `pixel_curves` as rows of CURVES_SCHEMA; none where there is no curve."""
    curves = pixel_curves(masks_NHW, maps_NHW) or {}
    names = {"cell_id": cell_id, "category": category}
    return [
        names | dict(zip(curves, map(float, point), strict=True))
        for point in zip(*curves.values(), strict=True)
    ]


def pixel_curves(
    masks_NHW: NDArray[np.bool_], maps_NHW: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]] | None:
    """fpr, tpr and pro, (P,) each, from (0, 0, 0) to (1, 1, 1), P at most POINTS + 2.

    Each point is exact: only the thresholds are a choice, and all pixels are counted at each. None
    where there are no anomalous or no normal pixels.
    """
    scores_A = maps_NHW[masks_NHW]
    if not len(scores_A) or len(scores_A) == masks_NHW.size:
        return None
    thresholds_T = _thresholds(scores_A, maps_NHW, masks_NHW)
    bins = len(thresholds_T) + 1  # a pixel in bin b is at or above the first b thresholds
    counts_3B = np.zeros((3, bins))  # of normal pixels, anomalous ones and regions
    for mask_HW, map_HW in zip(masks_NHW, maps_NHW, strict=True):
        bins_HW = np.searchsorted(thresholds_T, map_HW.ravel(), "right").reshape(map_HW.shape)
        counts_3B[0] += np.bincount(bins_HW[~mask_HW], minlength=bins)
        if mask_HW.any():
            counts_3B[1] += np.bincount(bins_HW[mask_HW], minlength=bins)
            shares_A = 1 / region_sizes(mask_HW[None])
            counts_3B[2] += np.bincount(bins_HW[mask_HW], shares_A, minlength=bins)
    above_3B = np.cumsum(counts_3B[:, ::-1], axis=1)
    above_3B /= above_3B[:, -1:].copy()
    curves_3P = np.concatenate((np.zeros((3, 1)), above_3B[:, :-1], np.ones((3, 1))), axis=1)
    return dict(zip(("fpr", "tpr", "pro"), curves_3P, strict=True))


def f1max_threshold(labels_N: NDArray[np.bool_], scores_N: NDArray[Any]) -> float:
    """The lowest score at which calling an image defective, from that score, has the largest F1."""
    falling_N = np.argsort(scores_N, kind="stable")[::-1]
    sorted_N = scores_N[falling_N]
    hits_N = np.cumsum(labels_N[falling_N])
    f1_N = 2 * hits_N / (np.arange(1, len(hits_N) + 1) + max(hits_N[-1], 1))
    f1_N[:-1][sorted_N[:-1] == sorted_N[1:]] = -1  # equal scores are called together
    return float(sorted_N[np.flatnonzero(f1_N == f1_N.max())[-1]])


def _thresholds(
    scores_A: NDArray[np.float32], maps_NHW: NDArray[np.float32], masks_NHW: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Rising thresholds (T,): quantiles of the anomalous pixels' scores and of normal ones'."""
    every = max(1, masks_NHW.size // SAMPLED)
    # A step that shares no factor with the images' width, or a few columns would stand for all.
    step = next(n for n in range(every, 2 * every + 2) if np.gcd(n, masks_NHW.shape[-1]) == 1)
    normal = maps_NHW.reshape(-1)[::step][~masks_NHW.reshape(-1)[::step]]
    shares = np.linspace(0, 1, POINTS // 2)
    quantiles = [np.quantile(scores_A, shares, method="nearest")]
    if len(normal):
        quantiles.append(np.quantile(normal, 1 - shares**2, method="nearest"))
    return np.unique(np.concatenate(quantiles))


def _read(path: Path, schema: pa.Schema) -> pl.DataFrame:
    if not path.exists():
        return pl.DataFrame(schema.empty_table())
    return read_part(path, schema, advice="remove it")
