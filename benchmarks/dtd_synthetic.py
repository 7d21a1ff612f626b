"""DTD-Synthetic: textures with drawn anomalies (Aota et al., WACV 2023), in the MVTec layout."""

from __future__ import annotations

from functools import partial

from benchmarks.parts.files import Published
from benchmarks.parts.folder import published_benchmark

TEXTURES = (
    "Blotchy_099", "Fibrous_183", "Marbled_078", "Matted_069", "Mesh_114",
    "Perforated_037", "Stratified_154", "Woven_001", "Woven_068", "Woven_104",
    "Woven_125", "Woven_127",
)  # fmt: skip
KNOWN = Published(
    "dtd_synthetic",
    licence="not stated by its authors: treat as not for commercial use",
    source="github.com/ToshimichiAota/zero-shot-anomaly-detection (its README links the archive)",
    usual_folders=("dtd_synthetic", "DTD-Synthetic", "dtd-synthetic"),
    counts=dict.fromkeys(TEXTURES),
)

BENCHMARK = partial(published_benchmark, KNOWN)
