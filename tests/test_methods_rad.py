"""RAD beside a plain loop over patches; its bank of images; its size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from made_features import made_inputs
from made_training import numbers, served
from torch import Tensor

from kernels.kcenter import kcenter_order_reference
from methods.parts.backbone import Extractor
from methods.parts.maps import evaluated
from methods.parts.shapes import feature_numbers
from methods.rad import EVERYWHERE, METHOD, Rad, cost, directions

PAPER, KNOBS = METHOD.presets["paper"]
TINY = replace(PAPER, backbone="vit_tiny_patch16_224", resize=64, crop=48, layers=(2, 5))
"""3 x 3 patches and a class token of two blocks, 192 channels."""


def filled(config: Rad.Config, count: int) -> tuple[Rad, Tensor]:
    """A bank of random images, and these."""
    method = Rad(config)
    values = made_inputs(method, count).half().float()
    method.fit(served(values))
    return method, values


def taken_apart(values: Tensor) -> tuple[Tensor, Tensor]:
    """TINY's class tokens (B, 2, 192) and patches (B, 2, 9, 192), by hand."""
    blocks = values.view(len(values), 2, 192 * 10)
    return blocks[..., :192], blocks[..., 192:].unflatten(2, (192, 9)).transpose(2, 3)


def plain_distance(
    image: Tensor, classes: Tensor, normal: Tensor, own_class: Tensor, k: int, radius: int
) -> list[float]:
    """The official evaluation of one image (2, 9, 192), cell by cell."""
    similar = sorted(
        range(len(normal)),
        key=lambda i: -float(F.cosine_similarity(own_class[1], classes[i, 1], dim=0)),
    )[:k]
    found = []
    for cell in range(9):
        total = 0.0
        for layer in range(2):
            best = max(
                float(F.cosine_similarity(image[layer, cell], normal[i, layer, other], dim=0))
                for i in similar
                for other in range(9)
                if abs(other // 3 - cell // 3) <= radius and abs(other % 3 - cell % 3) <= radius
            )
            total += (1 - best) / 2
        found.append(total)
    return found


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("radius", [0, 1, EVERYWHERE])
def test_scores_are_those_of_a_plain_loop(k: int, radius: int) -> None:
    method, values = filled(TINY, 5)
    queries = numbers(2, values.shape[1], seed=9).half().float()
    knobs = replace(KNOBS, k_image=k, radius=radius, scored_at=30)
    found = method.score(queries, knobs)
    classes, normal = taken_apart(values)
    own_classes, images = taken_apart(queries)
    errors = torch.tensor(
        [plain_distance(images[i], classes, normal, own_classes[i], k, radius) for i in range(2)]
    ).view(2, 3, 3)
    wanted = evaluated(errors, 48, knobs)
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.images, wanted.images, rtol=1e-4, atol=1e-5)


def test_the_map_is_upsampled_and_blurred_as_officially() -> None:
    errors = numbers(2, 3, 3).abs()
    found = evaluated(errors, 48, replace(KNOBS, scored_at=40))
    maps = F.interpolate(errors[:, None], 40, mode="bilinear", align_corners=False)
    apart = torch.arange(5.0) - 2
    kernel = torch.exp(-(apart[:, None] ** 2 + apart[None] ** 2) / 2)
    maps = F.conv2d(maps, (kernel / kernel.sum())[None, None], padding=2)
    wanted = F.interpolate(maps, 48, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.maps, wanted)
    ranked = maps.flatten(1).sort(dim=1, descending=True).values
    torch.testing.assert_close(found.images, ranked[:, :16].mean(dim=1))


def test_at_a_rate_below_one_images_are_kept_that_cover_the_others() -> None:
    config = replace(TINY, bank_rate=0.5)
    method, values = filled(config, 9)
    classes = F.normalize(taken_apart(values)[0][:, 1], dim=1)
    kept = [next(i for i in range(9) if torch.equal(values[i], row)) for row in
            method.bank.images_ML.float()]  # fmt: skip
    assert kept == kcenter_order_reference(classes, 4, kept[0]).tolist()
    torch.testing.assert_close(method.bank.vectors_MC, taken_apart(values)[0][kept, 1])


def test_without_a_class_token_the_mean_of_the_deepest_layer_finds_images() -> None:
    method, values = filled(METHOD.presets["smoke"].config, 6)
    torch.testing.assert_close(method.vector(values), values[:, 64:].mean(dim=(2, 3)))
    parts = [directions(part) for part in method.layers(values.flatten(1))]
    assert [part.shape for part in parts] == [(6, width, 8, 8) for width in (24, 40, 112)]
    wanted = F.normalize(values[2, 24:64, 3, 5], dim=0)
    torch.testing.assert_close(parts[1][2, :, 3, 5], wanted)


def test_one_pass_on_a_transformer_with_random_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_small_patch16_dinov3").state_dict(), tmp_path / "w.pth")
    config = replace(
        PAPER, backbone="vit_small_patch16_dinov3", weights=str(tmp_path / "w.pth"),
        resize=64, crop=48,
    )  # fmt: skip
    method = Rad(config)
    pixels = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    values = Extractor(method.inputs(config), tmp_path / "w.pth")(pixels)
    method.fit(served(values[:2]))
    found = method.score(values, KNOBS)
    assert found.maps.shape == (3, 48, 48)
    assert found.images[2] > found.images[:2].max() + 0.001, "the third is not in the bank"


def test_the_paper_preset_keeps_every_training_image_in_halves() -> None:
    assert feature_numbers(Rad.inputs(PAPER)) == 4 * (28 * 28 + 1) * 768
    found = cost(PAPER, 3629)
    assert found.bank_rows == 3629 * 28 * 28
    assert found.bank_bytes == 2 * 3629 * 4 * 785 * 768
    assert cost(replace(PAPER, bank_rate=0.1), 3629).bank_rows == 362 * 28 * 28
