"""DRAEM: masks and textures by their statistics, losses and augmentations by other means."""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_cells import smoke_cells
from made_training import drawn, numbers, served
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from torch import Tensor

from harness.plan.cell import Cell
from harness.plan.registry import UsageError
from methods.draem import METHOD, Draem
from methods.networks.inpainting import focal, ssim
from methods.painting import augmentation, perlin
from methods.painting.textures import OWN, folder_textures, own_textures
from methods.parts.maps import image_score
from methods.parts.progress import quiet

CONFIG, KNOBS = METHOD.presets["smoke"]
SIDE = 64


def images(count: int, side: int = SIDE, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def perlin_at(turns: Tensor, cells: tuple[int, int], side: int, y: int, x: int) -> float:
    """Perlin noise at one pixel, corner by corner as its definition has it."""
    point = [side_ * cell / side for side_, cell in zip((y, x), cells, strict=True)]
    corner = [math.floor(coordinate) for coordinate in point]
    terms = []
    for below in (0, 1):
        for beside in (0, 1):
            away = point[0] - corner[0] - below, point[1] - corner[1] - beside
            angle = 2 * math.pi * float(turns[corner[0] + below, corner[1] + beside])
            ramp = math.cos(angle) * away[0] + math.sin(angle) * away[1]
            near = [1 - abs(coordinate) for coordinate in away]
            weight = math.prod(6 * t**5 - 15 * t**4 + 10 * t**3 for t in near)
            terms.append(weight * ramp)
    return math.sqrt(2) * sum(terms)


def test_noise_is_perlins_for_another_number_of_cells_in_every_image() -> None:
    cells = torch.tensor([[1, 1], [2, 16], [32, 4], [8, 8]])
    turns = torch.rand(
        4, perlin.CORNERS, perlin.CORNERS, generator=torch.Generator().manual_seed(0)
    )
    noise = perlin.perlin(turns, cells, SIDE)
    random = np.random.default_rng(0)
    for index, (rows, columns) in enumerate(cells.tolist()):
        for y, x in random.integers(0, SIDE, (20, 2)).tolist():
            wanted = perlin_at(turns[index], (rows, columns), SIDE, y, x)
            assert float(noise[index, y, x]) == pytest.approx(wanted, abs=1e-5)
        # It vanishes at every corner of the grid.
        assert not noise[index, :: SIDE // rows, :: SIDE // columns].abs().max() > 1e-6


@pytest.mark.slow
def test_masks_have_the_areas_and_scales_of_the_official_generator() -> None:
    masks = perlin.masks(drawn(1500), 128)
    assert masks.dtype == torch.bool and masks.shape == (1500, 1, 128, 128)
    share = masks.double().mean(dim=(1, 2, 3))
    # Right of each: 1,500 masks of the official NumPy generator, turned by SciPy.
    assert float(share.mean()) == pytest.approx(0.0462, abs=0.003)
    assert float(share.quantile(0.1)) == pytest.approx(0.0209, abs=0.005)
    assert float(share.quantile(0.9)) == pytest.approx(0.0687, abs=0.008)
    assert float(share.quantile(0.99)) == pytest.approx(0.155, abs=0.03)
    assert float((share > 0).double().mean()) == pytest.approx(0.955, abs=0.02)
    # Mean length of a run in a row: noise of few cells makes long ones, noise of many short ones.
    ends = (masks[:, 0, :, 1:] ^ masks[:, 0, :, :-1]).sum(dim=(1, 2)).clamp(min=1)
    length = (2 * masks.sum(dim=(1, 2, 3)) / ends)[share > 0.005]
    for quantile, official in ((0.1, 1.85), (0.5, 5.31), (0.9, 21.96)):
        assert float(length.quantile(quantile)) == pytest.approx(official, rel=0.15)


def test_masks_and_textures_follow_the_seed_and_the_place_alone() -> None:
    first, again, other = (perlin.masks(drawn(8, seed), SIDE) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    for make in (perlin.masks, perlin.textures):
        whole = make(drawn(6), SIDE)
        by_rank = [make(drawn(6, positions=torch.arange(rank, 6, 2)), SIDE) for rank in (0, 1)]
        for rank, rows in enumerate(by_rank):
            torch.testing.assert_close(rows, whole[rank::2])


def test_own_textures_are_training_images_moved_or_made() -> None:
    trained = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, SIDE, SIDE) / 5
    textures = own_textures(served(trained))(drawn(400), SIDE)
    flat = textures.flatten(1).amax(dim=1) == textures.flatten(1).amin(dim=1)
    assert 0.4 < flat.double().mean() < 0.6
    assert set(textures[flat][:, 0, 0, 0].mul(5).round().int().tolist()) == {0, 1, 2, 3, 4}
    ramp = torch.arange(SIDE * SIDE).view(1, 1, SIDE, SIDE).expand(1, 3, -1, -1) / SIDE**2
    moved = own_textures(served(ramp))(drawn(40), SIDE)
    whole = [
        texture
        for texture in moved
        if len(texture[0].unique()) == SIDE**2 and texture[0].eq(texture[1]).all()
    ]
    assert len(whole) > 5 and all(
        torch.equal(texture.sort()[0].unique(), ramp.unique()) for texture in whole
    )
    assert len({float(texture[0, 0, 0]) for texture in whole}) > 5, "each moved by another step"


def test_half_of_the_images_stay_normal_and_the_others_mix_with_a_texture() -> None:
    method = Draem(replace(CONFIG, damaged=0.5))
    clean, white = torch.zeros(400, 3, SIDE, SIDE), torch.ones(400, 3, SIDE, SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("methods.draem.augment", lambda textures, draws: textures)
        damaged, where = method.damage(clean, lambda draws, side: white, drawn(400))
    assert torch.equal(damaged[~where.expand_as(damaged)], torch.zeros(int((~where).sum()) * 3))
    touched = where.flatten(1).any(dim=1)
    assert 0.3 < touched.double().mean() < 0.6
    opacity = damaged.flatten(1).amax(dim=1)[touched]
    assert 0.2 <= opacity.min() < 0.3 and 0.9 < opacity.max() <= 1
    assert float(opacity.mean()) == pytest.approx(0.6, abs=0.05)


def test_turning_keeps_the_middle_and_blackens_what_comes_in() -> None:
    ramp = torch.linspace(0.1, 1, SIDE).expand(1, 3, SIDE, SIDE)
    quarter = perlin.rotate(ramp, torch.tensor([90.0]))
    assert torch.allclose(quarter, ramp.rot90(1, (2, 3)), atol=1e-5) or torch.allclose(
        quarter, ramp.rot90(-1, (2, 3)), atol=1e-5
    )
    eighth = perlin.rotate(torch.ones(1, 3, SIDE, SIDE), torch.tensor([45.0]))[0, 0]
    assert eighth[0, 0] == 0 and float(eighth[SIDE // 2, SIDE // 2]) == pytest.approx(1)
    # The octagon that a square shares with itself turned by 45 degrees.
    assert float(eighth.mean()) == pytest.approx(2 * (math.sqrt(2) - 1), abs=0.01)


def number(*values: float) -> Tensor:
    return torch.tensor([[*values, *[0.5] * (augmentation.DRAWN - len(values))]])


def test_augmentations_against_pillow_and_colorsys() -> None:
    whole = (images(1) * 255).round()
    picture = Image.fromarray(whole[0].permute(1, 2, 0).byte().numpy())
    given = whole / 255

    def bytes_of(augmented: Tensor) -> np.ndarray:
        return (augmented[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()

    for bits, draw in ((1, 0.0), (3, 0.3), (8, 0.99)):
        wanted = np.asarray(ImageOps.posterize(picture, bits))
        assert np.abs(bytes_of(augmentation.posterize(given, number(draw))) - wanted).max() < 0.01
    wanted = np.asarray(ImageOps.solarize(picture, 80))
    assert np.abs(bytes_of(augmentation.solarize(given, number(0.5, 0.0))) - wanted).max() < 0.01
    assert torch.equal(augmentation.solarize(given, number(0.5, 0.9)), given)
    assert (
        np.abs(bytes_of(augmentation.equalize(given, number())) - ImageOps.equalize(picture)).max()
        < 2
    )
    cut = ImageOps.autocontrast(picture, cutoff=10)
    assert np.abs(bytes_of(augmentation.autocontrast(given, number(0.5))) - cut).max() < 4
    torch.testing.assert_close(augmentation.sharpness(given, number(0.5)), given)
    shifted = augmentation.hue_and_saturation(given, number(0.8, 0.7))[0]
    for y, x in ((0, 0), (7, 40), (63, 12)):
        hue, saturation, value = colorsys.rgb_to_hsv(*given[0, :, y, x].tolist())
        turned = (hue + 30 / 255) % 1, min(1, max(0, saturation + 20 / 255)), value
        assert shifted[:, y, x].tolist() == pytest.approx(colorsys.hsv_to_rgb(*turned), abs=1e-4)


def test_three_different_augmentations_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    def noting(index: int) -> object:
        def change(values: Tensor, numbers: Tensor) -> Tensor:
            return values + (values == values) * 10.0**-index * 0.1

        return change

    monkeypatch.setattr(augmentation, "AUGMENTATIONS", tuple(noting(i) for i in range(6)))
    changed = augmentation.augment(torch.zeros(300, 3, 1, 1), drawn(300))[:, 0, 0, 0]
    digits = [f"{value:.6f}"[2:] for value in changed.tolist()]
    assert all(text.count("1") == 3 and text.count("0") == 3 for text in digits)
    assert len(set(digits)) == 20


def test_ssim_is_that_of_scipys_local_statistics() -> None:
    first, second = images(2, 16).double(), images(2, 16, seed=1).double()
    second = 0.6 * first + 0.4 * second

    def local(planes: np.ndarray) -> np.ndarray:
        # Of 11 pixels, zeros beyond the border.
        how = {"sigma": (0, 0, 1.5, 1.5), "mode": "constant", "radius": (0, 0, 5, 5)}
        blurred: np.ndarray = gaussian_filter(planes, **how)
        return blurred

    a, b = first.numpy(), second.numpy()
    ma, mb = local(a), local(b)
    va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
    light = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
    wanted = (light * (2 * cov + 9e-4) / (va + vb + 9e-4)).mean(axis=(1, 2, 3))
    assert ssim(first, second).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert ssim(first, first).tolist() == pytest.approx([1, 1])


def test_focal_loss_by_its_formula() -> None:
    logits, where = numbers(2, 2, 4, 5), torch.rand(2, 1, 4, 5) < 0.5
    odds = np.exp(logits.double().numpy())
    right = np.where(where.numpy()[:, 0], odds[:, 1], odds[:, 0]) / odds.sum(axis=1)
    certain = (1 - 1e-5) * right + 1e-5 * (1 - right) + 1e-5
    wanted = (-((1 - certain) ** 2) * np.log(certain)).mean(axis=(1, 2))
    assert focal(logits, where).tolist() == pytest.approx(wanted.tolist(), rel=1e-4)


def test_zeros_beyond_the_border_never_win() -> None:
    maps = torch.rand(5, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.avg_pool2d(maps[:, None], 21, stride=1, padding=10)
    torch.testing.assert_close(image_score(maps, 21), padded.amax(dim=(1, 2, 3)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dtd" / "dotted").mkdir(parents=True)
    for index, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        Image.new("RGB", (30, 20), colour).save(tmp_path / "dtd" / "dotted" / f"{index}.png")
    return tmp_path / "dtd"


def cell(*overrides: str) -> Cell:
    return smoke_cells("draem", overrides=overrides)[0]


def test_a_folder_of_textures_is_where_they_come_from(folder: Path) -> None:
    textures = folder_textures(folder, SIDE, quiet)(drawn(60), 32)
    assert textures.shape == (60, 3, 32, 32)
    assert set(map(tuple, textures[:, :, 0, 0].tolist())) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_cost_counts_the_textures_that_are_held(folder: Path) -> None:
    paper = METHOD.presets["paper"].config
    own, given = (
        METHOD.cost(replace(paper, textures=textures), 10) for textures in (OWN, str(folder))
    )
    assert given.training_bytes - own.training_bytes == 3 * 3 * 256**2
    assert given.train_flops == own.train_flops


def test_textures_belong_to_the_identity_by_content_and_to_the_row_by_name(folder: Path) -> None:
    own, given = cell(), cell(f"draem.textures={folder}")
    assert own.config.textures == OWN and own.weights_sha256 == ""
    assert given.variant == "textures=dtd" and len(given.weights_sha256) == 64
    assert given.fit_id != own.fit_id
    moved = folder.rename(folder.with_name("elsewhere"))
    assert cell(f"draem.textures={moved}").fit_id == given.fit_id
    Image.new("RGB", (30, 20), (9, 9, 9)).save(moved / "dotted" / "1.png")
    assert cell(f"draem.textures={moved}").fit_id != given.fit_id


def test_textures_that_can_not_be_had_are_refused_while_planning(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        cell(f"draem.textures={folder}/nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        cell(f"draem.textures={folder / 'empty'}")
    (folder / "empty" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"a\.png is no image"):
        cell(f"draem.textures={folder / 'empty'}")
