"""Pseudo-anomalies: exact labels, chance by key alone, stated distributions, held-out images."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import SMOOTH, anomalies, noise_image, shapes_set
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import DataError, SealedError, sealed
from benchmarks.parts.content import check, fingerprint
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.images import load_masks, load_views
from benchmarks.parts.synthesis.families import FAMILIES, MADE, PAPER
from benchmarks.parts.synthesis.masks import LARGEST, SHAPES, coverage, place_outline
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from benchmarks.parts.synthesis.synthesis import (
    Drawn,
    Synthesis,
    UnseenError,
    foreground,
    synthesise,
)
from benchmarks.shapes import Shapes

LOUD = Synthesis(levels=(3,), positions=("anywhere",))


@cache
def many_drawn() -> list[Drawn]:
    target, source = noise_image(1), noise_image(2)
    return [synthesise(target, source, PAPER, Synthesis(), 0, str(n))[0] for n in range(300)]


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_exact_and_what_is_marked_can_be_seen(family: str) -> None:
    pseudo = PseudoValidation(Shapes(), SMOOTH, share=0.3, families=[family])
    assert pseudo.families == (family,)
    for sample in anomalies(pseudo):
        target = pseudo.target(sample)
        assert target is not None
        normal = pseudo.read_image(target).astype(int)
        image, mask = pseudo.read_image(sample).astype(int), pseudo.read_mask(sample)
        changed = np.abs(image - normal).max(axis=2)
        assert not changed[~mask].any() and changed[mask].any()
        drawn = pseudo.drawn(sample)
        assert sample.defect == family
        assert drawn.size == mask.mean() > 0
        assert max(drawn.change) >= pseudo.synthesis.least_change
        again = PseudoValidation(Shapes(), SMOOTH, share=0.3, families=[family])
        assert (again.read_image(sample) == image).all(), "rendered and drawn are the same"


def test_the_mask_holds_only_what_the_paste_can_reach() -> None:
    """On a target and a source that differ everywhere, marked and changed are the same pixels."""
    target, source = np.full((96, 96, 3), 20, np.uint8), np.full((96, 96, 3), 220, np.uint8)
    for number in range(30):
        drawn, canvas = synthesise(target, source, PAPER, Synthesis(), 0, str(number))
        if drawn.blending != "matched":
            assert ((canvas.image != target).any(axis=2) == canvas.mask).all()


def test_the_papers_fragments_come_from_elsewhere_pixel_by_pixel() -> None:
    """The source's colours are the coordinates of its pixels, so each tells where it is from."""
    y, x = np.mgrid[:256, :256].astype(np.uint8)
    target, source = np.zeros((256, 256, 3), np.uint8), np.stack([y, x, 0 * x + 255], axis=2)
    found = 0
    for number in range(60):
        with suppress(UnseenError):  # a ramp that is matched to its ground is hardly there
            drawn, canvas = synthesise(target, source, PAPER, LOUD, 0, str(number))
        if drawn.blending == "hard":
            moved = canvas.image[canvas.mask][:, :2].astype(int) - np.argwhere(canvas.mask)
            assert len(np.unique(moved, axis=0)) <= len(drawn.shapes)
            assert np.abs(moved).max(axis=1).min() >= 0.05 * 256
            found += 1
    assert found > 5


def test_chance_follows_from_seed_and_key_alone() -> None:
    first = shapes_set()
    expected = {s.key: (first.read_image(s), first.read_mask(s)) for s in anomalies(first)}
    again = PseudoValidation(Shapes(), SMOOTH, share=0.5, anomalies=3)
    some = anomalies(again, "gear")[::-1]
    with ThreadPoolExecutor(2) as pool:
        masks = list(pool.map(again.read_mask, some))
    for sample, mask in zip(some, masks, strict=True):
        assert (mask == expected[sample.key][1]).all()
        assert (again.read_image(sample) == expected[sample.key][0]).all()
    alone = PseudoValidation(Shapes(), ["gear"], share=0.5, anomalies=3)
    assert anomalies(alone) == anomalies(first, "gear")
    assert (alone.read_image(some[0]) == expected[some[0].key][0]).all()


def test_another_seed_holds_out_and_draws_otherwise() -> None:
    assert {s.key for s in shapes_set().train()} != {s.key for s in shapes_set(seed=1).train()}
    target, source = noise_image(1), noise_image(2)
    masks = [synthesise(target, source, PAPER, LOUD, seed, "a")[1].mask for seed in (0, 1)]
    assert (masks[0] != masks[1]).any()


def test_more_anomalies_of_an_image_are_others_and_leave_the_first_alone() -> None:
    single, triple = (PseudoValidation(Shapes(), ["disc"], anomalies=n) for n in (1, 3))
    assert triple.train() == single.train()
    assert set(single.validation()) < set(triple.validation())
    assert len(anomalies(triple)) == 3 * len(anomalies(single))
    for sample in anomalies(single):
        assert (triple.read_image(sample) == single.read_image(sample)).all()
        shown = [s for s in anomalies(triple) if triple.target(s) == single.target(sample)]
        assert len({triple.read_mask(s).tobytes() for s in shown}) == 3
    contents = {b"".join(triple.content(s)) for s in anomalies(triple)}
    assert len(contents) == len(anomalies(triple))
    with pytest.raises(DataError, match="at least 1"):
        PseudoValidation(Shapes(), anomalies=0)


def test_it_can_be_read_like_any_data_set_and_while_the_test_split_is_sealed() -> None:
    pseudo = shapes_set(0.2)
    with sealed():
        with pytest.raises(SealedError):
            Shapes().test()
        samples = pseudo.validation(["disc", "screw"])
        views, masks = load_views(pseudo, samples, 64), load_masks(pseudo, samples, 64)
    assert views.shape == (len(samples), 3, 64, 64)
    assert masks is not None
    for sample, mask in zip(samples, masks, strict=True):
        assert sample.anomalous or not mask.any()
    assert sum(sample.anomalous for sample in samples) * 4 == 3 * len(samples)
    assert masks.any(axis=(1, 2)).sum() > len(samples) / 4
    assert check(pseudo, pseudo.validation()) == []
    assert len({sample.key for sample in pseudo.validation()}) == len(pseudo.validation())


def test_fingerprint_sees_seed_and_options() -> None:
    ways: list[dict[str, Any]] = [
        {}, {"synthesis": Synthesis(masks=2)}, {"families": ["blur"]}, {"seed": 1}
    ]  # fmt: skip
    made = [PseudoValidation(Shapes(), ["disc"], **way) for way in ways]
    assert len({fingerprint(pseudo, pseudo.validation()) for pseudo in made}) == 4


def test_shares_of_level_blending_position_and_count() -> None:
    for counts, values in (
        (Counter(drawn.level for drawn in many_drawn()), (1, 2, 3)),
        (Counter(drawn.blending for drawn in many_drawn()), ("hard", "feathered", "matched")),
        (Counter(len(drawn.shapes) for drawn in many_drawn()), (1, 2, 3)),
    ):
        assert set(counts) == set(values)
        # A third each: four standard deviations of 300 draws are 33.
        assert all(abs(counts[value] - 100) < 33 for value in values), counts
    assert {drawn.shapes[0] for drawn in many_drawn()} == set(SHAPES), "each is a dominant one"


def test_sizes_are_log_uniform_up_to_a_third() -> None:
    wide = np.array([drawn.size for drawn in many_drawn() if drawn.shapes[0] not in LARGEST])
    assert 1e-4 <= wide.min() < 0.001
    assert 0.2 < wide.max() < 0.35
    thirds = np.histogram(np.log(wide), bins=3, range=np.log([1e-4, 1 / 3]))[0] / len(wide)
    # Tiny ones that cannot be seen were drawn again, hence not exactly a third each.
    assert (np.abs(thirds - 1 / 3) < 0.1).all(), thirds
    scratches = [drawn.size for drawn in many_drawn() if set(drawn.shapes) == {"scratch"}]
    assert max(scratches) <= 1.5 * LARGEST["scratch"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("area", [12, 300, 6000])
def test_outlines_have_the_area_that_was_asked_for(shape: str, area: int) -> None:
    random = np.random.default_rng(0)
    areas = [(coverage([place_outline(random, shape, area, 10_000)]) > 0).sum() for _ in range(20)]
    # Thin strokes are kept whole, a pixel wide at least: the smaller, the larger they come out.
    tolerance = {12: 0.4, 300: 0.1, 6000: 0.05}[area] * (2.5 if shape == "scratch" else 1)
    assert np.median(areas) == pytest.approx(area, rel=tolerance)
    assert max(coverage([place_outline(random, shape, area, 40.0)]).shape) <= 44


def test_a_soft_edge_keeps_the_area_and_never_fades_to_nothing() -> None:
    for seed in range(20):
        outline = place_outline(np.random.default_rng(seed), "blob", 900, 1000)
        hard, soft = coverage([outline]), coverage([outline], feather=3.0)
        assert ((soft > 0) == (hard > 0)).all()
        assert soft[soft > 0].min() >= 26
        assert soft.max() == 255
        assert len(np.unique(soft)) > 10


def test_the_foreground_prior_lands_on_the_disc() -> None:
    def on_object(position: str) -> float:
        options = Synthesis(positions=(position,), largest=0.01, masks=1)
        pseudo = PseudoValidation(
            Shapes(), ["disc"], share=0.9, families=[PAPER], synthesis=options
        )
        hits = []
        for sample in anomalies(pseudo):
            normal = pseudo.read_image(pseudo.plan_of(sample).image)
            hits.append((normal.min(axis=2) > 80)[pseudo.read_mask(sample)].any())
            assert pseudo.drawn(sample).position == position
        return float(np.mean(hits))

    assert on_object("foreground") >= 0.95
    assert on_object("anywhere") < 0.9


def test_a_texture_has_no_foreground() -> None:
    shapes = Shapes()
    assert all(foreground(shapes.read_image(s)) is None for s in shapes.train(["weave"]))
    for sample in shapes.train(["disc", "gear", "screw"]):
        cells = foreground(shapes.read_image(sample))
        assert cells is not None
        assert cells.shape[1] == 2
        assert 0 <= cells.min() <= cells.max() < 128
    options = Synthesis(positions=("foreground",))
    pseudo = PseudoValidation(shapes, ["weave"], families=[PAPER], synthesis=options)
    assert {pseudo.drawn(sample).position for sample in anomalies(pseudo)} == {"anywhere"}


def test_invisible_places_are_drawn_again() -> None:
    """Only a small square differs: all fragments must come from it or lie on it."""
    target = np.full((128, 128, 3), 90, np.uint8)
    source = target.copy()
    source[40:80, 40:80] = 230
    for number in range(20):
        _, canvas = synthesise(target, source, PAPER, LOUD, 0, str(number))
        assert np.abs(canvas.image.astype(int) - 90)[canvas.mask].mean() >= LOUD.least_change


def noise_of(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(2, 300), (9, 7), (40, 1200)])
def test_odd_sizes_end_in_an_image(size: tuple[int, int]) -> None:
    target, source = noise_of(size)
    for family in MADE:
        try:
            drawn, canvas = synthesise(target, source, family, LOUD, 0, "odd")
        except UnseenError as error:
            assert family in str(error)
        else:
            assert canvas.image.shape == target.shape and drawn.size == canvas.mask.mean() > 0


@pytest.mark.parametrize("alike", [np.full((2, 64, 64, 3), 90, np.uint8), noise_of((1, 1))])
def test_where_nothing_can_be_seen_is_a_clear_end(alike: NDArray[np.uint8]) -> None:
    """On flat images that are alike, and where an image is too small for any."""
    with pytest.raises(UnseenError, match=r"^a/b: no pseudo-anomaly .* could be seen in") as error:
        synthesise(*alike, PAPER, LOUD, 0, "a/b")
    assert "\n" not in str(error.value)


def test_a_source_of_another_size_is_fitted(tmp_path: Path) -> None:
    for number, size in enumerate([(40, 60), (70, 50), (64, 64), (30, 90)]):
        path = tmp_path / f"widget/train/good/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_image(number)).resize(size).save(path)
    mine = folder_benchmark("mine", tmp_path)
    pseudo = PseudoValidation(mine, families=["same"], anomalies=3, synthesis=LOUD)
    for sample in anomalies(pseudo):
        shape = pseudo.read_image(pseudo.plan_of(sample).image).shape
        assert pseudo.read_image(sample).shape == shape
        assert pseudo.read_mask(sample).shape == shape[:2]
