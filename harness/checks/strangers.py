"""Images that are unlike the others of their category: a foreign product among the good ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_views
from methods.parts.backbone import LITE0, Extractor, Features, find_weights

VIEW = Features(backbone=LITE0, layers=(3, 4), resize=160, grid=1)
BATCH, AT_ONCE = 32, 1024
NEIGHBOURS, MOST_OF_THEM = 11, 0.6
"""An image is of another category if so many of its nearest are. Of the normal images of shapes,
ELPV, and screw with metal_plate and commutator none is named; of three that are moved from each
category to another all are."""
APART = 8.0
"""Robust standard deviations of the distance to the middle of a category, beyond which an image is
like none of them."""
FEWEST = 8
"""Images of which a category has a middle."""


def strangers(benchmark: Benchmark, samples: Sequence[Sample]) -> Iterator[str]:
    """A line for each normal image whose nearest are of another category, or that is far from all.

    WeightsMissing where the backbone is not here.
    """
    pooled_ND = _pooled(benchmark, samples)
    names = [sample.category for sample in samples]
    others, far = _others(pooled_ND, names), _far(pooled_ND, np.array(names))
    for number, sample in enumerate(samples):
        if number in others:
            yield f"{sample.key}: looks like {others[number]}, by features of {LITE0}"
        elif number in far:
            yield f"{sample.key}: is unlike the rest of {sample.category}, by features of {LITE0}"


def _pooled(benchmark: Benchmark, samples: Sequence[Sample]) -> Tensor:
    """One vector of length 1 an image: the mean of its features over all places."""
    extractor = Extractor(VIEW, find_weights(VIEW))
    found = []
    for start in range(0, len(samples), BATCH):
        views = load_views(benchmark, samples[start : start + BATCH], VIEW.resize, VIEW.crop)
        found.append(extractor(torch.from_numpy(views).float() / 255).flatten(1))
    return torch.nn.functional.normalize(torch.cat(found))


def _others(pooled_ND: Tensor, names: Sequence[str]) -> dict[int, str]:
    """The images most of whose nearest are of one other category, and of which."""
    found = {}
    count = min(NEIGHBOURS, len(names) - 1)
    for start in range(0, len(names), AT_ONCE):
        apart_BN = torch.cdist(pooled_ND[start : start + AT_ONCE], pooled_ND)
        apart_BN[range(len(apart_BN)), range(start, start + len(apart_BN))] = torch.inf
        for number, nearest in enumerate(apart_BN.topk(count, largest=False).indices, start):
            [(name, votes)] = Counter(names[i] for i in nearest.tolist()).most_common(1)
            if name != names[number] and votes >= MOST_OF_THEM * count:
                found[number] = name
    return found


def _far(pooled_ND: Tensor, names_N: np.ndarray) -> set[int]:
    """The images that are far from the middle, the median, of their category."""
    found: set[int] = set()
    for name in np.unique(names_N):
        mine = np.flatnonzero(names_N == name)
        if len(mine) < FEWEST:
            continue
        values = pooled_ND.numpy()[mine]
        apart = np.linalg.norm(values - np.median(values, axis=0), axis=1)
        usual = np.median(apart)
        spread = max(1.4826 * float(np.median(np.abs(apart - usual))), 1e-6)
        found |= set(mine[apart > usual + APART * spread].tolist())
    return found
