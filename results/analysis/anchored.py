"""Whether a setting is better than the anchor, the one there is, where no anomaly is real.

Families of made anomalies disagree about settings, and nothing but the test split tells which of
them is right. So a family is one draw of all that a defect may be, and the uncertainty lies between
families.

Shape legend: N images, S settings, G groups (a family on a category), F families, P parts of the
images, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.9
DRAWS = 1000
PARTS = 10
"""Parts of the images that are left out in turn, to see what depends on few of them."""

Floats = NDArray[np.float64]


class Image(NamedTuple):
    """An image of the pseudo-validation: its category, its family, which is "" for a normal
    one, and the key of its clean twin, if it has one."""

    key: str
    category: str
    family: str
    twin: str | None


class Group(NamedTuple):
    """The anomalies of one family on one category."""

    family: str
    category: str


def distances(images: Sequence[Image], scores_SN: Floats) -> dict[Group, Floats]:
    """The distance d' of each group's anomalies to their clean twins by each setting, (S,).

    The median over pairs of the difference in score, in standard deviations of the category's
    normal images: it does not saturate where AUROC does, and rewards a tight normal tail. An image
    of another category has no twin and is compared with the median normal image. NaN where all
    normal images have one score.
    """
    place = {image.key: number for number, image in enumerate(images)}
    members: dict[Group, list[int]] = {}
    for number, image in enumerate(images):
        members.setdefault(Group(image.family, image.category), []).append(number)
    found = {}
    for group, anomalies in members.items():
        normal = members.get(Group("", group.category))
        if not group.family or normal is None:
            continue
        twins = [place[twin] for number in anomalies if (twin := images[number].twin)]
        middle_S1 = np.median(scores_SN[:, normal], axis=1, keepdims=True)
        clean = scores_SN[:, twins] if twins else middle_S1
        rise_S = np.median(scores_SN[:, anomalies] - clean, axis=1)
        spread_S = scores_SN[:, normal].std(axis=1)
        found[group] = np.divide(
            rise_S, spread_S, out=np.full_like(rise_S, np.nan), where=spread_S > 0
        )
    return found


def without_parts(images: Sequence[Image], scores_SN: Floats) -> list[dict[Group, Floats]]:
    """The distances without each part of the clean images and what was made of them."""
    ranks: dict[str, dict[str, int]] = {}
    parts_N = np.empty(len(images), dtype=int)
    for number, image in enumerate(images):
        of_category = ranks.setdefault(image.category, {})
        unit = image.twin or image.key
        parts_N[number] = of_category.setdefault(unit, len(of_category)) % PARTS
    kept = [np.flatnonzero(parts_N != part).tolist() for part in range(PARTS)]
    return [distances([images[i] for i in some], scores_SN[:, some]) for some in kept]


@dataclass(frozen=True)
class Comparison:
    """Settings compared with one of them, the anchor; all figures are differences in d' to it.

    `distances` are (G, S), `parts` (P, G, S) the same without each part of the images. A group that
    the anchor can't be measured on does not count; a setting that can't be measured on one that
    counts is never better.
    """

    groups: Sequence[Group]
    distances: Floats
    parts: Floats
    anchor: int

    @cached_property
    def families(self) -> list[str]:
        """The families that count, sorted."""
        return sorted({group.family for group in self._counted})

    @cached_property
    def gains(self) -> Floats:
        """The gain in each family, a mean over categories, (F, S)."""
        return self._by_family(self.distances)

    @cached_property
    def mean(self) -> Floats:
        """The mean gain over families, (S,)."""
        mean_S: Floats = self.gains.mean(axis=0)
        return mean_S

    @cached_property
    def error(self) -> Floats:
        """The standard error of the mean gain, (S,): from the spread between families, and from
        what few images decide in all of them alike."""
        between_S = (self._residual**2).sum(0) / len(self.families) ** 2
        error_S: Floats = np.sqrt(between_S + self._noise)
        return error_S

    @cached_property
    def bound(self) -> Floats:
        """The lower bound of the mean gain, (S,), of all settings at once with CONFIDENCE.

        The residuals of families and of parts get random signs; the largest t of any setting is
        noted in each draw, and taken for no less than Student's, as few families have few signs.
        0 for the anchor; minus infinity where nothing can be said, as of a single family.
        """
        from scipy import stats  # half a second, which no process of a sweep should wait for

        count, random = len(self.families), np.random.default_rng(0)
        bound_S = np.full(self.distances.shape[1], -np.inf)
        if count > 1:
            drawn_DS = random.choice([-1.0, 1.0], (DRAWS, count)) @ self._residual / count
            squares_S = (self._residual**2).sum(0)
            between_DS = (squares_S - count * drawn_DS**2) / (count * (count - 1))
            error_DS = np.sqrt(np.maximum(between_DS, 0) + self._noise)
            drawn_DS += random.choice([-1.0, 1.0], (DRAWS, len(self._lean))) @ self._lean
            t_DS = np.divide(drawn_DS, error_DS, out=np.zeros_like(drawn_DS), where=error_DS > 0)
            largest = max(
                np.quantile(t_DS.max(axis=1), CONFIDENCE), stats.t.ppf(CONFIDENCE, count - 1)
            )
            bound_S = np.nan_to_num(self.mean - largest * self.error, nan=-np.inf)
        bound_S[self.anchor] = 0.0
        return bound_S

    @cached_property
    def within_noise(self) -> list[int]:
        """The settings that are at most one standard error below the anchor, itself among them."""
        return np.flatnonzero(self.mean >= -self.error).tolist()

    def against(self, anchor: int) -> Comparison:
        """The same settings compared with another of them."""
        return replace(self, anchor=anchor)

    def choice(self, steps: Sequence[int]) -> int:
        """The setting with the highest bound if that is above 0, else the anchor.

        Of settings within noise of it whose bound is above 0 too, the one that is the fewest
        `steps` from the anchor.
        """
        best = int(self.bound.argmax())
        if self.bound[best] <= 0:
            return self.anchor
        alike = [place for place in self.against(best).within_noise if self.bound[place] > 0]
        return min(alike, key=lambda place: (steps[place], -self.bound[place]))

    @cached_property
    def _counted(self) -> dict[Group, int]:
        """The rows of the groups that count."""
        known = np.flatnonzero(np.isfinite(self.distances[:, self.anchor])).tolist()
        return {self.groups[place]: place for place in known}

    def _by_family(self, distances_GS: Floats) -> Floats:
        """Gains (..., F, S) of distances (..., G, S)."""
        gains_GS = distances_GS - distances_GS[..., [self.anchor]]
        rows = {
            name: [place for group, place in self._counted.items() if group.family == name]
            for name in self.families
        }
        return np.stack([gains_GS[..., of, :].mean(axis=-2) for of in rows.values()], axis=-2)

    @cached_property
    def _residual(self) -> Floats:
        """Deviations of families from their mean, (F, S), as large as those from the true mean."""
        count = len(self.families)
        residual_FS: Floats = (self.gains - self.mean) * (count / max(1, count - 1)) ** 0.5
        return residual_FS

    @cached_property
    def _lean(self) -> Floats:
        """How far the mean gain leans on each part of the images, (P, S): the jackknife."""
        parts_PGS = np.where(np.isnan(self.parts), self.distances, self.parts)
        moved_PS = self._by_family(parts_PGS).mean(axis=-2) - self.mean
        lean_PS: Floats = moved_PS * ((PARTS - 1) / PARTS) ** 0.5
        return lean_PS

    @cached_property
    def _noise(self) -> Floats:
        noise_S: Floats = (self._lean**2).sum(0)
        return noise_S
