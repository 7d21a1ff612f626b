"""Values that no training, bank or map could use: refused while planning, in one line."""

from __future__ import annotations

import re

import pytest
from made_cells import smoke_cells
from made_features import need_lite0

from harness.plan.overrides import with_overrides
from harness.plan.registry import UsageError, load

REFUSED = {
    "lafite": [
        "t=-1", "t=1001", "train_t=40 t=50: t=50", "train_t=1001", "steps=0",
        "t=5 steps=6: steps=6", "k=-1", "k=1000000", "t=0 k=0: t=0 and k=0", "coreset=0.3: coreset",
        "coreset=0: coreset", "bank_rate=1.1: bank_rate", "temperature=0: temperature",
        "sigma=-0.1", "pool=225", "epochs=0", "projection=0: projection=0: must be at least 1",
    ],
    "uniad": [
        "width=18 heads=4: width", "neighbours=6", "neighbours=29", "k=1: bank_rate", "k=-1",
        "rebuild=false: rebuild=False and k=0", "bank_rate=0.1 k=1000000: k=1000000", "epochs=0",
        "learning_rate=0: learning_rate", "pool=0", "projection=0: must be at least 1",
    ],
    "patchcore": [
        "k=0", "k=1000000", "bank_rate=0: bank_rate", "coreset=0.9", "sigma=-1: sigma", "pool=29",
        "starts=-1", "reweight=1", "reweight=9999", "reweight=3 pool=2: pool=2", "projection=-3",
        "sigma=inf: sigma=inf: must be a finite number",
    ],
    "padim": [
        "channels=0", "channels=1793: channels=1793: .* 1..1792", "ridge=0: ridge", "pool=225",
        "sigma=-1: sigma", "sigma=nan: must be a finite number",
    ],
    "revdistill": [
        "image_size=72: image_size=72: .*multiple of 32", "image_size=32: .*4 or more",
        "layers=1,3 decoder_blocks=1,1: half of the one before",
        "decoder_blocks=1,1: decoder_blocks", "decoder_blocks=1,0,1: decoder_blocks",
        "bottleneck_blocks=0", "epochs=0", "pool=257", "learning_rate=0: learning_rate",
        "learning_rate=nan: must be a finite", "sigma=-1: sigma",
    ],
    "fastflow": [
        "flow_steps=0", "clamp=0: clamp", "hidden_ratio=0: hidden_ratio", "kernels=2: kernels",
        "kernels=: kernels", "epochs=0", "weight_decay=-1: weight_decay", "sigma=-1: sigma",
        "learning_rate=0: learning_rate", "pool=257", "hidden_ratio=inf: must be a finite number",
    ],
    "draem": [
        "image_size=100", "image_size=32", "window=512",
        "window=0: window=0: must be a multiple of 32", "damaged=1.5", "most_transparent=-0.1",
        "epochs=0", "pool=257", "learning_rate=0: learning_rate",
        "learning_rate=inf: must be a finite number", "textures=: textures=: names no folder",
    ],
    "patchsvdd": [
        "image_size=63", "patches=0", "fine_stride=3", "coarse_stride=12", "fine_rate=0: fine_rate",
        "coarse_rate=1.1", "noise=-0.1", "learning_rate=0: learning_rate", "svdd_weight=nan",
    ],
    "dinomaly": [
        "heads=5: heads=5: must divide the 768 channels",
        "decoder_layers=3: a multiple of groups=2",
        "grid=8 backbone=resnet18 layers=1,2: groups=2: layers on a grid are 1 group; set groups=1",
        r"dropout=1: dropout=1.0: must be in \[0, 1\)", "easy=1: easy=1.0", "easy_factor=-1",
        "iterations=0", "epochs=0", "learning_rate=0: learning_rate=0.0", "grid=-1", "warmup=-1",
        "groups=0", "window=4: window=4: must be odd", "top=0: top=0.0", "sigma=nan", "scored_at=4",
        "crop=60: a view of 60 pixels", "backbone=nosuch: timm knows no such model",
        "backbone=resnet18: is no vision transformer",
    ],
    "inpformer": [
        "heads=5: heads=5: must divide the 768 channels",
        "decoder_layers=3: a multiple of groups=2", "decoder_layers=0: must be at least 1",
        "prototypes=0", "mining=-1", "gather=inf", "epochs=0", "grid=-1", "window=0",
    ],
    "rad": [
        "bank_rate=0", "bank_rate=1.5", "k_image=0", "radius=-1", "top=2", "grid=-2",
    ],
}  # fmt: skip
"""Method -> settings beside those of its `paper` preset, and what is said, if not the last."""


def why_not(method: str, settings: str, images: int = 10) -> str:
    """What speaks against these settings; empty where nothing does."""
    declared = load("methods", method)
    values = dict(setting.split("=") for setting in settings.split())
    try:
        declared.check(*with_overrides(method, *declared.presets["paper"], values), images)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("method", "given"), [(method, given) for method in REFUSED for given in REFUSED[method]]
)
def test_settings_out_of_range_are_refused_in_one_line(method: str, given: str) -> None:
    settings, _, said = given.partition(": ")
    line = why_not(method, settings)
    assert re.search(said or settings, line) and "\n" not in line


@pytest.mark.parametrize(
    ("method", "given"),
    [
        *((method, "") for method in REFUSED),
        ("lafite", "t=0"), ("lafite", "k=0"), ("lafite", "t=1000 steps=1000"),
        ("patchcore", "projection=1"), ("patchcore", "projection=none"),
        ("patchsvdd", "coarse_rate=1 fine_rate=1"),
    ],
)  # fmt: skip
def test_settings_within_their_range_are_taken(method: str, given: str) -> None:
    assert why_not(method, given) == ""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("patchcore.layers=3,1", "shallowest first"),
        ("revdistill.layers=1,1", "each layer once"),
        ("dinomaly.grid=0", "backbone=tf_efficientnet_lite0: is no vision transformer"),
        ("inpformer.layers=1,7", "layers 0..4"),
        ("inpformer.crop=0", "a view of 0 from 128 pixels"),
        ("patchcore.crop=0", "a view of 0 from"),
        ("lafite.pool=1000", "side of the map"),
        ("lafite.image_size=8", "32 pixels or more"),
    ],
)
def test_a_view_that_can_not_be_had_is_refused_by_planning(given: str, reason: str) -> None:
    need_lite0()
    method = given.split(".")[0]
    with pytest.raises(UsageError) as caught:
        smoke_cells(method, overrides=[given])
    message = str(caught.value)
    assert message.startswith(method) and reason in message and "\n" not in message


def test_a_gaussian_needs_two_images() -> None:
    assert "at least 2" in why_not("padim", "", images=1)
