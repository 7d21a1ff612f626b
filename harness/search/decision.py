"""How a search decides between the settings that it tried, from their rows in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.plan.cell import Cell
from harness.plan.options import CHEAP
from harness.plan.registry import load
from harness.search.study import Study, bank_search
from harness.store.store import Store
from harness.work.cost import cost_of
from methods.base import Stage
from results.analysis.anchored import (
    PARTS,
    Comparison,
    Floats,
    Group,
    Image,
    distances,
    without_parts,
)
from results.analysis.selection import image_auroc
from results.table import read_part


@dataclass(frozen=True)
class Tried:
    """A setting, and the image AUROC of each seed; no values where a seed has none."""

    knobs: Any
    values: tuple[float, ...]


@dataclass(frozen=True)
class StageResult:
    """The settings that a stage tried; `best` is the place of the one that is gone on from."""

    knobs: Sequence[str]
    """The names of the knobs that it searched."""
    fixed: Mapping[str, Any]
    tried: Sequence[Tried]
    best: int

    @property
    def next_start(self) -> Any:
        """The setting that the search goes on from."""
        return self.tried[self.best].knobs


class Verdict(NamedTuple):
    """The setting that is chosen, and why; gains are differences in d' to the anchor."""

    knobs: Any
    why: str
    gain: float | None = None
    """The expected gain; None where the highest mean is taken, as published."""
    bound: float | None = None
    """The lower bound of the gain; None where nothing can be said."""
    families: dict[str, float] | None = None
    """The gain in each family."""


class NothingToChoose(Exception):
    """A choice among what was tried would mean nothing; the text says why, and what to do."""


def decide(
    study: Study, stage: Stage, proposed: Sequence[Any], anchor: Any, store: Store
) -> StageResult:
    """The setting that the search goes on from: see `verdict`, or as published the highest mean
    over seeds, of equal ones the earlier.

    NothingToChoose where no setting, or not even the anchor, has a value.
    """
    tried = [Tried(knobs, values(study, knobs, store)) for knobs in proposed]
    known = [place for place, setting in enumerate(tried) if setting.values]
    measured = [proposed[place] for place in known]
    if not known or not (study.published or anchor in measured):
        lacking = "the setting that it starts from has no" if known else "no setting has an"
        raise NothingToChoose(f"{', '.join(stage.grid)}: {lacking} image AUROC on held-out images")
    if study.published:
        best = max(known, key=lambda place: fmean(tried[place].values))
    else:
        best = proposed.index(verdict(study, measured, anchor, store).knobs)
    return StageResult(list(stage.grid), dict(stage.fixed), tried, best)


def verdict(study: Study, settings: Sequence[Any], anchor: Any, store: Store) -> Verdict:
    """The anchor, or a setting that families of anomalies agree is better.

    With `--prefer cheap` the cheapest that is within noise of it.
    """
    compared = compare(study, settings, anchor, store)
    count = len(compared.families)
    if count < 2:
        return Verdict(anchor, f"{count or 'no'} family can be measured, which tells nothing: kept")
    best = compared.choice([_steps(knobs, anchor, settings) for knobs in settings])
    why = "families disagree: kept"
    if settings[best] != anchor:
        why = f"{(compared.gains[:, best] > 0).sum()} of {count} families agree"
    if study.options.prefer == CHEAP:
        near, costs = compared.against(best), [score_cost(study, knobs) for knobs in settings]
        cheap = min(near.within_noise, key=lambda place: (costs[place], -near.mean[place]))
        if costs[cheap] < costs[best]:
            why = f"the cheapest within noise, which may cost up to {-near.bound[cheap]:.2f} d'"
            best = cheap
    gains = zip(compared.families, compared.gains[:, best].tolist(), strict=True)
    figures = float(compared.mean[best]), float(compared.bound[best])
    return Verdict(settings[best], why, *figures, dict(gains))


def values(study: Study, knobs: Any, store: Store) -> tuple[float, ...]:
    """The image AUROC of a setting, seed by seed, over folds; empty if a cell has none."""
    seeds = []
    for own in study.cells:
        cells = [c for c in study.at(knobs) if _whole(study, c) and c.seed == own.seed]
        measured = [image_auroc(read_part(store.part(cell))) for cell in cells]
        known = [value for value in measured if value is not None]
        if len(known) < len(measured):
            return ()
        seeds.append(fmean(known))
    return tuple(seeds)


def compare(study: Study, settings: Sequence[Any], anchor: Any, store: Store) -> Comparison:
    """The settings before all anomalies of all cells of the study, from the scores in the store.

    Folds are taken together; what is left out is measured by the model that did not learn it.
    Distances are averaged over seeds.
    """
    seeds = []
    for own in study.cells:
        found: list[dict[Group, Floats]] = [{} for _ in range(PARTS + 1)]
        for images, scores_SN in _scored(study, settings, own.seed, store):
            sets = (distances(images, scores_SN), *without_parts(images, scores_SN))
            for into, measured in zip(found, sets, strict=True):
                into |= measured
        groups = sorted(found[0])
        nothing = np.full(len(settings), np.nan)
        seeds.append(np.stack([[of.get(g, nothing) for g in groups] for of in found]))
    whole_GS, *parts = np.mean(seeds, axis=0)
    return Comparison(groups, whole_GS, np.stack(parts), settings.index(anchor))


def _scored(
    study: Study, settings: Sequence[Any], seed: int, store: Store
) -> Iterator[tuple[list[Image], Floats]]:
    """Images and what the settings give them, (S, N): of each half that was left out, then of all
    folds together, each image once."""
    together: dict[str, Image] = {}
    columns: dict[str, Floats] = {}
    for place, cell in enumerate(study.every):
        if cell.seed != seed:
            continue
        images = images_of(cell)
        scores_SN = np.stack([_scores(study.at(knobs)[place], images, store) for knobs in settings])
        if not _whole(study, cell):
            yield images, scores_SN
            continue
        known = set(together)
        for image, column in zip(images, scores_SN.T, strict=True):
            if not {image.key, image.twin} & known:
                together[image.key], columns[image.key] = image, column
    yield list(together.values()), np.stack(list(columns.values()), axis=1)


def images_of(cell: Cell) -> list[Image]:
    """The images of the cell's pseudo-validation, sorted by key."""
    pseudo, images = cell.data.open_held(), []
    for sample in pseudo.validation(cell.data.categories):
        twin = pseudo.target(sample) if sample.anomalous else None
        family = sample.defect if sample.anomalous else ""
        images.append(Image(sample.key, sample.category, family, twin.key if twin else None))
    return images


def held_images(study: Study) -> dict[str, int]:
    """Held-out normal images of each category, those of all folds."""
    cells = (cell for cell in study.every if _whole(study, cell) and cell.seed == study.first.seed)
    images = {image for cell in cells for image in images_of(cell) if not image.family}
    return dict(sorted(Counter(image.category for image in images).items()))


def _scores(cell: Cell, images: Sequence[Image], store: Store) -> Floats:
    scores = pl.read_parquet(store.trial_scores(cell), glob=False).sort("key")
    if scores["key"].to_list() != [image.key for image in images]:
        raise ValueError(f"{store.trial_scores(cell)}: holds scores of other images")
    return scores["score"].to_numpy()


def _whole(study: Study, cell: Cell) -> bool:
    """Whether a cell learned all categories of the study."""
    return cell.data.categories == study.first.data.categories


def _steps(knobs: Any, anchor: Any, settings: Sequence[Any]) -> int:
    """Steps of the grids from the anchor: of a knob without an order one, where it differs."""
    steps = 0
    for name, value in asdict(knobs).items():
        start, every = getattr(anchor, name), {getattr(setting, name) for setting in settings}
        if isinstance(value, int | float):
            low, high = sorted((value, start))
            steps += sum(low < other <= high for other in every)
        else:
            steps += value != start
    return steps


def score_cost(study: Study, knobs: Any) -> float:
    """FLOPs to score an image with a setting: passes of the network and the search in its bank."""
    first = study.first
    cost, search = cost_of(first), bank_search(first.method, knobs)
    bank = cost.score_flops / first.data.train_images
    if study.bank_searches:
        bank *= search.coreset / max(study.bank_searches).coreset if search else 0.0
    passes: int = load("methods", first.method).passes(knobs)
    return passes * cost.pass_flops + bank
