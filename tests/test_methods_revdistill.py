"""RevDistill: cosines by SciPy, the official shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_training import numbers
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cosine
from torch import Tensor

from methods.networks.mirrored_student import Student
from methods.parts.backbone import LITE0
from methods.parts.batches import Draws
from methods.revdistill import METHOD, RevDistill, ends_in_relu

CONFIG, KNOBS = METHOD.presets["smoke"]
CONFIG = replace(CONFIG, image_size=64)
SHAPES = ((24, 16, 16), (40, 8, 8), (112, 4, 4))
"""Layers 1 to 3 of lite0 at 64 pixels."""


def pyramid(count: int, seed: int = 0) -> Tensor:
    layers = [numbers(count, *shape, seed=seed + i) for i, shape in enumerate(SHAPES)]
    return torch.cat([layer.flatten(1) for layer in layers], dim=1)


def pairs(method: RevDistill, values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Teacher and student layers."""
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    layers = [x.view(-1, *shape) for x, shape in zip(values.split(sizes, 1), SHAPES, strict=True)]
    with torch.no_grad():
        return list(zip(layers, method.student(*layers), strict=True))


def apart(method: RevDistill, values: Tensor) -> list[np.ndarray]:
    """SciPy's cosine distance at each location of each layer."""
    return [
        np.array(
            [
                [
                    [cosine(t[:, y, x], s[:, y, x]) for x in range(t.shape[2])]
                    for y in range(t.shape[1])
                ]
                for t, s in zip(teacher.double().numpy(), student.double().numpy(), strict=True)
            ]
        )
        for teacher, student in pairs(method, values)
    ]


def test_maps_are_scipys_cosine_distances() -> None:
    method, values = RevDistill(CONFIG), pyramid(2)
    wanted = apart(method, values)
    upsampled = sum(
        F.interpolate(
            torch.from_numpy(layer)[:, None], (64, 64), mode="bilinear", align_corners=True
        )
        for layer in wanted
    )
    smooth = np.stack([gaussian_filter(layer, 4.0) for layer in upsampled[:, 0].numpy()])
    scores = method.score(values, replace(KNOBS, sigma=4.0))
    np.testing.assert_allclose(scores.maps.numpy(), smooth, atol=1e-5)
    np.testing.assert_allclose(scores.images.numpy(), smooth.max(axis=(1, 2)), atol=1e-5)


def test_losses_are_the_named_ones() -> None:
    values = pyramid(2)
    per_location = RevDistill(replace(CONFIG, loss="per_location"))
    none = Draws(None, per_location.device, 0)  # type: ignore[arg-type]
    losses = per_location.losses(per_location.student, values, none)
    wanted = sum(layer.mean(axis=(1, 2)) for layer in apart(per_location, values))
    np.testing.assert_allclose(losses.detach().numpy(), wanted, atol=1e-5)
    flattened = RevDistill(CONFIG)
    losses = flattened.losses(flattened.student, values, none)
    # The official code: the whole map is one vector.
    layers = pairs(flattened, values)
    wanted = [sum(cosine(t[i].flatten(), s[i].flatten()) for t, s in layers) for i in range(2)]
    np.testing.assert_allclose(losses.detach().numpy(), wanted, atol=1e-5)


def test_the_student_of_a_wide_resnet_has_the_official_shapes() -> None:
    config = RevDistill.Config()
    with torch.device("meta"):
        student = Student(
            (256, 512, 1024),
            bottleneck_blocks=config.bottleneck_blocks,
            decoder_blocks=config.decoder_blocks,
            relu=ends_in_relu(config.backbone),
        )
        layers = [torch.zeros(2, 256 * 2**i, 64 // 2**i, 64 // 2**i) for i in range(3)]
        shrunk = [to(x) for to, x in zip(student.shrink, layers, strict=True)]
        assert [tuple(x.shape) for x in shrunk] == 3 * [(2, 1024, 16, 16)]
        assert student.embed(torch.cat(shrunk, dim=1)).shape == (2, 2048, 8, 8)
        assert [x.shape for x in student(*layers)] == [x.shape for x in layers]
    assert [len(step) for step in student.grow] == [3, 4, 6]
    # Weights of the 3x3 convolutions: `width_per_group` is 128 there.
    wide = [
        block.inner[3].weight.shape[0]
        for block in (student.embed[0], *[s[0] for s in student.grow])
    ]
    assert wide == [1024, 512, 256, 128]
    # `de_wide_resnet50_2` without its unused last layer.
    assert sum(parameter.numel() for parameter in student.grow.parameters()) == 24_917_504


def non_negative(config: RevDistill.Config) -> bool:
    """Whether the student's last block of each layer ends in a ReLU, all or none of them."""
    with torch.device("meta"):
        ends = {
            isinstance(step[-1].leave, torch.nn.ReLU) for step in RevDistill(config).student.grow
        }
    assert len(ends) == 1
    return ends.pop()


@pytest.mark.parametrize("preset", ["paper", "smoke"])
@pytest.mark.parametrize(
    ("backbone", "relu"),
    [("resnet18.tv_in1k", True), ("resnext50_32x4d", True), (LITE0, False), ("resnetv2_50", False)],
)
def test_the_student_ends_as_the_teacher_unless_it_is_told(
    preset: str, backbone: str, relu: bool
) -> None:
    given = METHOD.presets[preset].config
    config = replace(given, backbone=backbone, image_size=64)
    assert non_negative(replace(config, relu=None)) is relu
    # The paper preset names none, so that it fits any backbone; smoke is linear, which fits any.
    assert non_negative(config) is (relu and preset == "paper")
    assert all(non_negative(replace(config, relu=asked)) is asked for asked in (True, False))


def test_names_of_relu_backbones_are_those_of_resnets_that_end_in_one() -> None:
    import timm

    names = [name for name in timm.list_models() if ends_in_relu(name)]
    assert {"resnet18", "resnet50", "wide_resnet50_2", "resnext101_64x4d"} <= {*names}
    for name in names[::4]:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False)
        last = [*network.layer4[-1].children()]
        assert isinstance(network, timm.models.ResNet) and isinstance(network.act1, torch.nn.ReLU)
        assert not any(isinstance(module, (torch.nn.SiLU, torch.nn.GELU)) for module in last)
        assert any(isinstance(module, torch.nn.ReLU) for module in last)
