"""MVTec AD: 15 categories of industrial objects and textures (Bergmann et al., CVPR 2019)."""

from __future__ import annotations

from functools import partial

from benchmarks.base import Counts
from benchmarks.parts.files import Published
from benchmarks.parts.folder import published_benchmark

KNOWN = Published(
    "mvtec",
    licence="CC BY-NC-SA 4.0: not for commercial use",
    source="mvtec.com/company/research/datasets/mvtec-ad (free, after registration)",
    usual_folders=("mvtec", "mvtec_ad", "mvtec_anomaly_detection", "MVTec"),
    counts={
        "bottle": Counts(209, 20, 63),
        "cable": Counts(224, 58, 92),
        "capsule": Counts(219, 23, 109),
        "carpet": Counts(280, 28, 89),
        "grid": Counts(264, 21, 57),
        "hazelnut": Counts(391, 40, 70),
        "leather": Counts(245, 32, 92),
        "metal_nut": Counts(220, 22, 93),
        "pill": Counts(267, 26, 141),
        "screw": Counts(320, 41, 119),
        "tile": Counts(230, 33, 84),
        "toothbrush": Counts(60, 12, 30),
        "transistor": Counts(213, 60, 40),
        "wood": Counts(247, 19, 60),
        "zipper": Counts(240, 32, 119),
    },
)

BENCHMARK = partial(published_benchmark, KNOWN)
