"""MPDD: six kinds of painted metal parts in varied pose and light (Jezek et al., ICUMT 2021)."""

from __future__ import annotations

from functools import partial

from benchmarks.base import Counts
from benchmarks.parts.files import Published
from benchmarks.parts.folder import published_benchmark

KNOWN = Published(
    "mpdd",
    licence="not stated by its authors: treat as not for commercial use, do not pass on",
    source="github.com/stepanje/MPDD (its README links the archive)",
    usual_folders=(
        "mpdd",
        "MPDD",
        *(f"{above}anomaly_dataset" for above in ("", "MPDD/", "mpdd/")),
    ),
    counts={
        "bracket_black": Counts(289, 32, 47),
        "bracket_brown": Counts(185, 26, 51),
        "bracket_white": Counts(110, 30, 30),
        "connector": Counts(128, 30, 14),
        "metal_plate": Counts(54, 26, 71),
        "tubes": Counts(122, 32, 69),
    },
)

BENCHMARK = partial(published_benchmark, KNOWN)
