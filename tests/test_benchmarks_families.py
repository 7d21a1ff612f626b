"""Families of anomalies: whose turn, from which source, how strong, and what can be seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_data import anomalies, noise_image, shapes_set, write_image
from PIL import Image

from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.synthesis.families import FAMILIES, LEFT_OUT, MADE, perlin
from benchmarks.parts.synthesis.paste import Canvas, Fragment, membrane, saturation
from benchmarks.parts.synthesis.pseudo import PseudoValidation, hold_out
from benchmarks.parts.synthesis.synthesis import Synthesis, synthesise
from benchmarks.shapes import Shapes


def test_the_families_take_turns_and_each_has_its_source() -> None:
    pseudo = shapes_set()
    assert pseudo.families == MADE, "all categories are learned, none is left out"
    counts = Counter((sample.category, sample.defect) for sample in anomalies(pseudo))
    assert set(counts.values()) == {4}, "12 images of a category, 3 of 9 families on each"
    for sample in anomalies(pseudo):
        origin, needs = pseudo.fragments_of(sample), FAMILIES[sample.defect].needs
        assert (origin is None) == (needs == "")
        if origin is not None:
            assert (origin.category == sample.category) == (needs == "same")


@pytest.mark.parametrize("family", FAMILIES)
def test_anomalies_have_the_colours_of_their_category(tmp_path: Path, family: str) -> None:
    """Grey images stay grey, and none is more saturated than its category, beside a vivid one."""
    dull = np.array([120, 90, 80], np.uint8)
    for number in range(10):
        blocks = noise_image(number, 64)
        for category, image in (
            ("grey", np.repeat(blocks[:, :, :1], 3, axis=2)),
            ("dull", dull + blocks[:, :, :1] // 2 + blocks // 16),
            ("vivid", blocks),
        ):
            path = tmp_path / category / f"train/good/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    data = folder_benchmark("mine", tmp_path)
    pseudo = PseudoValidation(data, ["dull", "grey"], share=0.8, anomalies=3, families=[family])
    for category in ("dull", "grey"):
        most = max(saturation(data.read_image(sample)) for sample in data.train([category]))
        made = [pseudo.read_image(sample) for sample in anomalies(pseudo, category)]
        assert len(made) == 24 and max(map(saturation, made)) <= most
        assert (most == 0) == (category == "grey")


def test_images_of_other_categories_are_anomalies_of_those_that_do_not_learn_them() -> None:
    every = (*MADE, LEFT_OUT)
    alone = PseudoValidation(Shapes(), ["gear"], share=0.5, anomalies=3, families=every)
    others = [sample for sample in anomalies(alone) if sample.defect == LEFT_OUT]
    assert len(others) == 4 and alone.families == every
    held = {sample.key for sample in hold_out(Shapes(), Shapes().train(), share=0.5)[1]}
    for sample in others:
        image = alone.plan_of(sample).image
        assert image.category != "gear" and image.key in held
        assert (alone.read_image(sample) == Shapes().read_image(image)).all()
        assert alone.read_mask(sample).all() and alone.target(sample) is None
    kept = [key for key in (s.key for s in anomalies(alone)) if "left-out" not in key]
    assert kept == [sample.key for sample in anomalies(shapes_set(), "gear")]


def test_one_category_alone_has_no_other_to_take_from(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / f"widget/train/good/{number}.png", number, (40, 40))
    single = folder_benchmark("mine", tmp_path)
    pseudo = PseudoValidation(single, share=0.8, anomalies=9, families=(*MADE, LEFT_OUT))
    assert set(pseudo.families) == set(MADE) - {"other"}


@pytest.mark.slow
def test_stronger_levels_change_more() -> None:
    target, source = noise_image(1), noise_image(2)
    for family in MADE:
        changes = []
        for level in (1, 3):
            options = Synthesis(levels=(level,), smallest=0.01, largest=0.02, least_change=0.0)
            made = [synthesise(target, source, family, options, 0, str(n))[1] for n in range(30)]
            moved = [np.abs(c.image.astype(int) - target)[c.mask].mean() for c in made]
            changes.append(float(np.mean(moved)))
        assert changes[1] > 1.2 * changes[0], (family, changes)


def test_fine_structure_can_be_seen_though_its_mean_colour_is_that_of_the_ground() -> None:
    """Stripes of one pixel on grey: the gate of mean colour alone would draw them again."""
    grey = np.full((128, 128, 3), 120, np.uint8)
    stripes = grey.copy()
    stripes[:, ::2], stripes[:, 1::2] = 90, 150
    canvas, cut = Canvas(grey), np.full((32, 32), 255, np.uint8)
    patch = canvas.patch(stripes, Fragment(alpha=cut, contrast=1.0, blending="hard"))
    change = canvas.change(patch)
    assert change.colour < 1 and change.structure > 25
    assert change.visible(canvas.visible_from(patch, 5.0))
    # The same stripes on stripes: grain on equal ground, and nothing to see.
    again = Canvas(stripes)
    patch = again.patch(stripes, Fragment(alpha=cut, contrast=1.0, blending="hard", source=(2, 2)))
    assert not again.change(patch).visible(again.visible_from(patch, 5.0))


def test_a_membrane_meets_its_border_and_is_harmonic_inside() -> None:
    y, x = np.mgrid[:40, :40].astype(np.float32)
    ramp = np.stack([x + 2 * y, x * y, np.full_like(x, 7)], axis=2)  # harmonic, all three
    marked = (y - 20) ** 2 + (x - 20) ** 2 < 15**2
    solved = membrane(np.where(marked[:, :, None], 0, ramp), marked)
    np.testing.assert_allclose(solved, ramp, atol=1e-3)
    everywhere = membrane(ramp, np.ones_like(marked))
    np.testing.assert_allclose(everywhere[3, 5], ramp.mean(axis=(0, 1)), rtol=1e-5)
    large = membrane(
        np.full((300, 200, 3), 9.0, np.float32), np.pad(marked, ((130, 130), (80, 80)))
    )
    np.testing.assert_allclose(large, 9, rtol=1e-5)


def test_perlin_noise_is_zero_at_its_corners() -> None:
    noise = perlin(np.random.default_rng(0), (64, 96), (4, 8))
    assert noise.shape == (64, 96) and 0.3 < np.abs(noise).max() < 1.5
    np.testing.assert_allclose(noise[::16, ::12], 0, atol=1e-6)


def test_families_that_cannot_be_seen_on_an_image_are_known_by_their_keys(tmp_path: Path) -> None:
    """On flat images blur and erasing change nothing, nor do fragments and colours of another."""
    for number in range(8):
        path = tmp_path / f"widget/train/good/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 90 + number % 2, np.uint8)).save(path)
        with path.open("ab") as file:
            file.write(bytes(number + 1))  # copies stay together
    flat = folder_benchmark("mine", tmp_path)
    wanted = PseudoValidation(flat, share=0.5, anomalies=9)
    unseen = wanted.unseen()
    assert {key.split("/")[2] for key in unseen} == {"same", "poisson", "scar", "blur", "erase"}
    seen = PseudoValidation(flat, share=0.5, anomalies=9, unseen=unseen)
    assert seen.families == ("texture", "perlin", "colour") and seen.unseen() == []
