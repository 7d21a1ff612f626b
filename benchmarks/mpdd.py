"""MPDD: six kinds of painted metal parts in varied pose and light (Jezek et al., ICUMT 2021)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import Benchmark, Counts
from benchmarks.parts.folder import published_benchmark

LICENCE = "not stated by its authors: treat as not for commercial use, do not pass on"
SOURCE = "github.com/stepanje/MPDD (its README links the archive)"
USUAL_FOLDERS = ("mpdd", "MPDD", "anomaly_dataset", "MPDD/anomaly_dataset", "mpdd/anomaly_dataset")
PUBLISHED = {
    "bracket_black": Counts(289, 32, 47),
    "bracket_brown": Counts(185, 26, 51),
    "bracket_white": Counts(110, 30, 30),
    "connector": Counts(128, 30, 14),
    "metal_plate": Counts(54, 26, 71),
    "tubes": Counts(122, 32, 69),
}


def open_mpdd(root: Path | None) -> Benchmark:
    """The MPDD categories that lie in `root` or in a usual folder below it."""
    return published_benchmark(
        "mpdd", root, USUAL_FOLDERS, licence=LICENCE, source=SOURCE, published=PUBLISHED
    )


BENCHMARK = open_mpdd
