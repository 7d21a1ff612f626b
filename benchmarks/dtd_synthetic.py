"""DTD-Synthetic: textures with drawn anomalies (Aota et al., WACV 2023), in the MVTec layout."""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import Benchmark
from benchmarks.parts.folder import published_benchmark

LICENCE = "not stated by its authors: treat as not for commercial use"
SOURCE = "github.com/ToshimichiAota/zero-shot-anomaly-detection (its README links the archive)"
USUAL_FOLDERS = ("dtd_synthetic", "DTD-Synthetic", "dtd-synthetic")
PUBLISHED = dict.fromkeys(
    (
        "Blotchy_099", "Fibrous_183", "Marbled_078", "Matted_069", "Mesh_114", "Perforated_037",
        "Stratified_154", "Woven_001", "Woven_068", "Woven_104", "Woven_125", "Woven_127",
    )
)  # fmt: skip


def open_dtd_synthetic(root: Path | None) -> Benchmark:
    """The textures that lie in `root` or in a usual folder below it."""
    return published_benchmark(
        "dtd_synthetic", root, USUAL_FOLDERS, licence=LICENCE, source=SOURCE, published=PUBLISHED
    )


BENCHMARK = open_dtd_synthetic
