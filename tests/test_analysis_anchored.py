"""Settings compared with the anchor: exact distances, families that agree, noise that does not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from results.analysis.anchored import Comparison, Group, Image, distances, without_parts

FAMILIES = tuple("abcdefghi")
Floats = NDArray[np.float64]


def made_images(counts: dict[str, int], families: Iterable[str] = FAMILIES) -> list[Image]:
    """Normal images of each category, and of each of them an anomaly of three families in turn."""
    normal = [Image(f"{c}/{n}", c, "", None) for c, count in counts.items() for n in range(count)]
    names = tuple(families)
    return normal + [
        Image(f"{image.key}/{family}", image.category, family, image.key)
        for number, image in enumerate(normal)
        for family in dict.fromkeys(names[(number + turn) % len(names)] for turn in (0, 3, 6))
    ]


def made_scores(
    images: list[Image], random: np.random.Generator, gains: Floats, disagreement: float
) -> Floats:
    """Scores (S, N): the first setting is the anchor; `gains` (S,) are true for defects at large,
    and families differ from them, smoothly along the settings."""
    settings, families = len(gains), sorted({image.family for image in images if image.family})
    shared = random.normal(size=len(images)) * 0.95**0.5
    scores_SN = shared + random.normal(size=(settings, len(images))) * 0.05**0.5
    walks = random.normal(size=(len(families), settings)).cumsum(axis=1)
    walks = disagreement * (walks - walks[:, :1]) / settings**0.5
    strength: dict[tuple[str, str], float] = {}
    place = {image.key: number for number, image in enumerate(images)}
    for number, image in enumerate(images):
        if image.twin:
            group = image.category, image.family
            level = strength.setdefault(group, 1.5 * np.exp(random.normal()))
            seen = level * np.exp(0.7 * random.normal())
            by_family = 1 + gains + walks[families.index(image.family)]
            noise = 0.2 * random.normal(size=settings)
            scores_SN[:, number] = scores_SN[:, place[image.twin]] + seen * by_family + noise
    return scores_SN


def compared(images: list[Image], scores_SN: Floats, anchor: int = 0) -> Comparison:
    whole, parts = distances(images, scores_SN), without_parts(images, scores_SN)
    groups = sorted(whole)
    nothing = np.full(len(scores_SN), np.nan)
    return Comparison(
        groups,
        np.stack([whole[group] for group in groups]),
        np.stack([[part.get(group, nothing) for group in groups] for part in parts]),
        anchor,
    )


def chosen(images: list[Image], scores_SN: Floats) -> int:
    return compared(images, scores_SN).choice(range(len(scores_SN)))


def test_a_distance_is_a_median_over_pairs_in_deviations_of_normal_images() -> None:
    images = [Image(f"n{n}", "bolt", "", None) for n in range(4)]
    images += [Image(f"a{n}", "bolt", "scar", f"n{n}") for n in range(3)]
    images += [Image("nut", "bolt", "left-out", None), Image("other", "nut", "", None)]
    scores = np.array([[0.0, 2, 4, 6, 3.0, 3, 6, 9, 5], [1.0, 1, 1, 1, 9, 9, 9, 9, 5]])
    found = distances(images, scores)
    # Above their twins by 3, 1, 2; above the median normal image by 6.
    assert found[Group("scar", "bolt")][0] == pytest.approx(2 / 5**0.5)
    assert found[Group("left-out", "bolt")][0] == pytest.approx(6 / 5**0.5)
    assert set(found) == {("scar", "bolt"), ("left-out", "bolt")}
    assert np.isnan(found[Group("scar", "bolt")][1]), "normal images of one score have no spread"
    assert distances(images, 10 * scores + 3)[Group("scar", "bolt")][0] == pytest.approx(2 / 5**0.5)


@pytest.mark.parametrize("counts", [{"a": 5}, {"a": 20}, {"a": 5, "b": 9, "c": 30}])
def test_without_a_true_gain_the_anchor_is_kept(counts: dict[str, int]) -> None:
    images, kept = made_images(counts), 0
    for seed in range(100):
        scores = made_scores(images, np.random.default_rng(seed), np.zeros(12), 0.3)
        kept += chosen(images, scores) == 0
    assert kept >= 90, "of 100"


def test_a_choice_is_better_than_the_anchor_on_average_though_families_disagree() -> None:
    images, gains = made_images({"a": 20, "b": 30, "c": 12}), np.linspace(0, 0.5, 10)
    gains[1::2] *= -1  # half of the settings are worse
    won = [
        gains[chosen(images, made_scores(images, np.random.default_rng(seed), gains, 0.2))]
        for seed in range(40)
    ]
    assert np.mean(won) > 0.2 and np.mean(np.array(won) >= 0) >= 0.95


def one_group_a_family(gains_FS: Floats) -> Comparison:
    """Families on one category, whose images leave no doubt."""
    rows = 5 + np.asarray(gains_FS, dtype=float)
    groups = [Group(f"family {number}", "a") for number in range(len(rows))]
    return Comparison(groups, rows, np.stack([rows] * 10), 0)


def test_the_nearest_of_those_that_cannot_be_told_apart_is_chosen() -> None:
    noise = 0.2 * np.random.default_rng(0).normal(size=9)
    rows = np.stack([0 * noise, 1 + noise, 1.02 + noise[::-1], 0.4 + noise / 9, -1 + noise], axis=1)
    case = one_group_a_family(rows)
    assert case.bound[0] == 0 and (case.bound[1:4] > 0).all() and case.bound[4] < -1
    assert case.choice([0, 3, 1, 1, 1]) == 2 and case.choice([0, 1, 3, 1, 1]) == 1
    assert case.bound[3] < case.mean[3], "a lower bound"
    assert case.against(2).within_noise in ([1, 2], [2])
    assert case.against(1).mean[0] == pytest.approx(-case.mean[1])


def test_families_that_disagree_keep_the_anchor() -> None:
    assert (
        one_group_a_family([[0, 1.0], [0, -1], [0, 2], [0, -2], [0, 1.5], [0, -1]]).choice([0, 1])
        == 0
    )
    assert (
        one_group_a_family([[0, 1.0], [0, 0.9], [0, 1.1], [0, 0.8], [0, 1.2]]).choice([0, 1]) == 1
    )
    assert one_group_a_family([[0, 1.0]]).choice([0, 1]) == 0, "of one nothing is known of others"
    assert one_group_a_family([[0, 1.0], [0, 0.4]]).choice([0, 1]) == 0


def test_what_nobody_sees_and_scores_without_spread_keep_the_anchor() -> None:
    images, random = made_images({"a": 30, "b": 30}), np.random.default_rng(0)
    unseen = random.normal(size=(6, len(images)))
    assert chosen(images, unseen) == 0
    place = {image.key: number for number, image in enumerate(images)}
    twins = [place[image.twin or image.key] for image in images]
    assert chosen(images, unseen[:, twins]) == 0, "exactly as their twins"
    scores = made_scores(images, random, np.array([0, 0, 3.0, 2.0]), 0.1)
    normal_b = [place[image.key] for image in images if image.category == "b" and not image.family]
    flat = scores.copy()
    flat[2, normal_b] = 1.0
    assert chosen(images, scores) == 2 and chosen(images, flat) == 3, "no spread, no measure"
    flat[0, normal_b] = 1.0
    assert chosen(images, flat) == 2, (
        "a category that the anchor can't be measured on doesn't count"
    )
    normal_a = [place[image.key] for image in images if image.category == "a" and not image.family]
    flat[0, normal_a] = 1.0
    assert compared(images, flat).families == [] and chosen(images, flat) == 0
