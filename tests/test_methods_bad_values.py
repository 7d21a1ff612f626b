"""Values from the command line that no training could use, refused while planning."""

from __future__ import annotations

import pytest
from made_cells import smoke_cells
from made_features import need_lite0

from harness.registry import UsageError


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("patchcore.projection=0", "projection=0: must be at least 1"),
        ("patchcore.projection=-3", "projection=-3: must be at least 1"),
        ("lafite.projection=0", "projection=0: must be at least 1"),
        ("uniad.projection=0", "projection=0: must be at least 1"),
        ("patchcore.sigma=inf", "sigma=inf: must be a finite number"),
        ("padim.sigma=nan", "sigma=nan: must be a finite number"),
        ("fastflow.hidden_ratio=inf", "hidden_ratio=inf: must be a finite number"),
        ("fastflow.learning_rate=inf", "learning_rate=inf: must be a finite number"),
        ("revdistill.learning_rate=nan", "learning_rate=nan: must be a finite number"),
        ("fastflow.weight_decay=inf", "weight_decay=inf: must be a finite number"),
        ("patchcore.layers=3,1", "shallowest first"),
        ("revdistill.layers=1,1", "each layer once"),
        ("revdistill.image_size=32", "image_size=32"),
        ("draem.learning_rate=inf", "learning_rate=inf: must be a finite number"),
        ("draem.textures=", "textures=: names no folder"),
        ("draem.window=0", "window=0: must be a multiple of 32"),
        ("dinomaly.grid=0", "backbone=tf_efficientnet_lite0: is no vision transformer"),
        ("dinomaly.heads=5", "heads=5: must divide the 192 channels"),
        ("inpformer.decoder_layers=0", "decoder_layers=0: must be at least 1"),
        ("inpformer.layers=1,7", "layers 0..4"),
        ("inpformer.crop=0", "a view of 0 from 128 pixels"),
        ("patchcore.crop=0", "a view of 0 from"),
        ("rad.crop=0", "a view of 0 from 128 pixels"),
        ("rad.radius=-1", "radius=-1: must be at least 0"),
        ("rad.top=0", "top=0.0: must be in (0, 1]"),
    ],
)
def test_values_that_no_training_could_use(given: str, reason: str) -> None:
    need_lite0()
    method = given.split(".")[0]
    with pytest.raises(UsageError) as caught:
        smoke_cells(method, overrides=[given])
    message = str(caught.value)
    assert message.startswith(method) and reason in message and "\n" not in message


@pytest.mark.parametrize("method", ["patchcore", "lafite", "uniad"])
def test_a_projection_is_one_number_or_more_or_none(method: str) -> None:
    need_lite0()
    for given in ("1", "none"):
        assert smoke_cells(method, overrides=[f"{method}.projection={given}"])
