"""The election of a setting: exact differences, weights, ties, and that noise does not decide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from results.analysis.election import (
    Election,
    Group,
    Image,
    anomalous,
    paired_differences,
    ranks_of,
)


def made_images(counts: dict[str, int], families: tuple[str, ...]) -> list[Image]:
    """Normal images of each category, and an anomaly of each family on each of them."""
    normal = [Image(f"{c}/{n}", c, "", None) for c, count in counts.items() for n in range(count)]
    made = [Image(f"{i.key}/{f}", i.category, f, i.key) for i in normal for f in families]
    return normal + made


def drawn(
    images: list[Image], good: dict[str, list[float]], noise: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Differences (1, S, A): what settings are worth on a category, and noise of each image."""
    values_SA = np.array([good[image.category] for image in images]).T
    return (values_SA + noise * random.normal(size=values_SA.shape))[None]


def test_the_mean_of_differences_is_auroc_and_twins_are_compared_with_themselves() -> None:
    images = made_images({"a": 7, "b": 5}, ("blur", "scar"))
    images.append(Image("a/other", "a", "left-out", None))
    random = np.random.default_rng(1)
    scores = random.integers(0, 9, len(images)).astype(float)  # with ties
    found = paired_differences(images, scores)
    assert found.shape == (len(anomalous(images)),)
    for category, family in (("a", "blur"), ("b", "scar"), ("a", "left-out")):
        chosen = [i.category == category and i.family in ("", family) for i in images]
        labels = [bool(i.family) for i, keep in zip(images, chosen, strict=True) if keep]
        members = [(i.category, i.family) == (category, family) for i in anomalous(images)]
        auroc = roc_auc_score(labels, scores[chosen])
        assert found[members].mean() == pytest.approx(auroc - 0.5)
    same = [Image("n", "a", "", None), Image("m", "a", "", None), Image("p", "a", "blur", "n")]
    assert paired_differences(same, np.array([3.0, 1.0, 3.0])) == pytest.approx([0.0])


def test_ranks_share_ties_and_go_from_0_to_1() -> None:
    assert ranks_of(np.array([[3.0, 1.0, 3.0, 0.0]])).tolist() == [[2.5 / 3, 1 / 3, 2.5 / 3, 0.0]]
    assert ranks_of(np.array([[3.0]])).tolist() == [[0.5]]


def test_five_plates_and_a_texture_that_shows_nothing_do_not_decide() -> None:
    """The mean over categories, as the paper takes it, follows noise; the election does not."""
    counts, steps = {"plate": 5, "texture": 30, "screw": 30}, np.linspace(0, 0.12, 9)
    images = anomalous(made_images(counts, ("blur", "scar", "same")))
    good = {"screw": list(steps), "texture": [0.0] * 9, "plate": [0.0] * 9}
    elected, by_mean, share = [], [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        differences = drawn(images, good, 0.3, random)
        # One noisy image of the plates moves all of their families, and much.
        shocks = {key: random.normal(size=9) for key in sorted({str(i.twin) for i in images})}
        for place, image in enumerate(images):
            if image.category == "plate":
                differences[0, :, place] += 0.6 * shocks[str(image.twin)]
        election = Election(differences, images)
        elected.append(steps[int(election.scores.argmax())])
        categories = [[i.category == c for i in images] for c in counts]
        means = np.mean([differences[0][:, of].mean(axis=1) for of in categories], axis=0)
        by_mean.append(steps[int(means.argmax())])
        plates = [group.category == "plate" for group in election.groups]
        share.append(election.weights[plates].sum())
    assert np.mean(share) < 0.15, "a third, if all categories had the same vote"
    assert np.mean(elected) > np.mean(by_mean) + 0.02
    assert np.mean(elected) > 0.085, "of 0.12; a coin gives 0.06"


def test_a_family_that_contradicts_the_others_of_its_category_has_no_vote() -> None:
    images = anomalous(made_images({"a": 20}, ("blur", "scar", "same", "erase")))
    rising = np.linspace(0, 1, 6)[:, None] * np.ones(len(images))
    differences = np.where([i.family == "erase" for i in images], -rising, rising)
    noise = 0.01 * np.random.default_rng(0).normal(size=differences.shape)
    election = Election((differences + noise)[None], images)
    weights = dict(zip(election.groups, election.weights, strict=True))
    assert weights[Group("a", "erase")] == 0
    assert all(weights[Group("a", family)] > 0.3 for family in ("blur", "scar", "same"))
    assert election.scores.argmax() == 5


def test_ties_go_to_the_cheapest_then_to_the_most_stable_then_to_the_best() -> None:
    images = anomalous(made_images({"a": 40}, ("blur",)))
    random = np.random.default_rng(0)
    base = random.normal(0.3, 0.1, len(images))
    noise = 0.2 * random.normal(size=(3, len(images)))
    close = base + noise - noise.mean(axis=1, keepdims=True)  # within noise of one another
    bad = base - 0.5
    seeds = np.stack([np.stack([*close, bad])] * 2)
    # The second setting swings between seeds; averaged it is the same.
    seeds[0, 1] += 0.2
    seeds[1, 1] -= 0.2
    election = Election(seeds, images)
    assert 3 not in election.tied and len(election.tied) >= 2
    cheap = min(election.tied)
    costs = [(2.0,)] * 4
    costs[cheap] = (1.0,)
    assert election.winner(costs) == cheap
    costs[3] = (0.0,)
    assert election.winner(costs) == cheap, "a setting that is worse is not chosen for its price"
    equal = election.winner([(1.0,)] * 4)
    least = min(election.spreads[place] for place in election.tied)
    assert election.spreads[equal] == pytest.approx(least)
    clear = Election(np.array([[[0.1] * 9, [0.4] * 9]]), images[:9])
    assert clear.tied == [1] and clear.winner([(0.0,), (9.0,)]) == 1
