"""Protocols of published numbers: the settings of their sources, field by field.

`PROTOCOLS` has what the sources state; what they leave open is not compared. Settings are those of
a row's config and knobs. A source is "paper" (LafitE's), "ader" (the code of its benchmark) or
"authors" (the paper and official repository of the method itself).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from results.profiles import DEFAULT_PROFILE


class Not(NamedTuple):
    """Any value but this one."""

    value: Any

    def __str__(self) -> str:
        return f"not {self.value}"


class Source(NamedTuple):
    """Conditions of all methods of a source."""

    profile: str
    presets: tuple[str, ...]
    words: tuple[str, ...] = ()
    """Parts of a variant that change no setting which the source states."""
    pixels: str | None = None
    """The profile that judges the source's pixels, if it is another one."""


SOURCES = {
    # It leaves the size of pixel metrics open; its input and some baselines are UniAD's.
    "paper": Source(DEFAULT_PROFILE, ("paper",), ("tuned", "refit"), pixels="uniad"),
    "ader": Source("ader", ("ader", "paper")),
    "authors": Source(DEFAULT_PROFILE, ("paper",)),
}
DINOV2: Mapping[str, Any] = {
    "backbone": "vit_base_patch14_reg4_dinov2.lvd142m",
    "layers": [2, 3, 4, 5, 6, 7, 8, 9],
    "resize": 448,
    "crop": 392,
    "batch_size": 16,
    "scored_at": 256,
    "sigma": 4.0,
    "top": 0.01,
}
"""Settings that Dinomaly and INP-Former share."""
DTD = Not("own")
"""Published DRAEM draws its defects from the Describable Textures Dataset."""
PROTOCOLS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("paper", "lafite"): {
        "backbone": "tf_efficientnet_b4.aa_in1k",
        "image_size": 224,
        "epochs": 1000,
        "batch_size": 64,
        "bank_rate": 0.1,
        "coreset": 0.1,
        "sigma": 4.0,
    },
    ("paper", "uniad"): {"image_size": 224, "epochs": 1000},
    ("paper", "draem"): {"textures": DTD},
    ("ader", "uniad"): {
        "backbone": "tf_efficientnet_b4.aa_in1k",
        "image_size": 256,
        "feature_size": 16,
        "neighbours": 9,  # a window of 8 that reaches 4 tokens to each side
        "batch_size": 8,
    },
    ("ader", "revdistill"): {"backbone": "wide_resnet50_2.racm_in1k", "image_size": 256},
    ("ader", "patchcore"): {"resize": 256, "crop": 256, "image_score": "map"},
    ("ader", "draem"): {"image_size": 256, "textures": DTD},
    ("authors", "dinomaly"): {**DINOV2, "epochs": None, "iterations": 10_000, "dropout": 0.2},
    ("authors", "inpformer"): DINOV2,
}
ON_ONE: Mapping[tuple[str, str, str], Mapping[str, Any]] = {
    ("authors", "dinomaly", "real_iad"): {"iterations": 50_000, "dropout": 0.4},
}
"""Settings that a source states for one data set otherwise than for all."""


def mismatches(row: Mapping[str, Any]) -> Iterator[str]:
    """Reasons why a row of ours is not of the protocol of a published number; none if it is.

    `row` has our names, settings, metric and counts, and the number's source, epochs and
    their_variant.
    """
    source = SOURCES[row["source"]]
    key = (row["source"], row["method"])
    fields = {**PROTOCOLS.get(key, {}), **ON_ONE.get((*key, row["benchmark"]), {})}
    if row["epochs"] is not None:
        fields["epochs"] = row["epochs"]
    settings = json.loads(row["config_json"] or "{}") | json.loads(row["knobs_json"] or "{}")
    if row["mode"] != "multi-class":
        yield "one model a category, theirs is multi-class"
    if row["data"]:
        yield f"other images: {row['data']}"
    if row["preset"] not in source.presets:
        yield f"the preset is {row['preset']}, not {' or '.join(source.presets)}"
    profile = (row["metric"].startswith("pixel_") and source.pixels) or source.profile
    if row["profile"] != profile:
        yield f"the metric profile is {row['profile']}, not {profile}"
    for name, theirs in fields.items():
        ours = settings.get(name, "not recorded")
        if (ours == theirs.value) if isinstance(theirs, Not) else (ours != theirs):
            yield f"{name} is {ours}, theirs {theirs}"
    changed = {word for word in row["variant"].split(", ") if word} - {row["their_variant"]}
    known = {*source.words, *(word for word in changed if word.partition("=")[0] in fields)}
    if others := sorted(changed - known):
        yield f"a variant: {', '.join(others)}"
    if row["categories"] != row["expected"]:
        yield f"{row['categories']} of {row['expected']} categories"
