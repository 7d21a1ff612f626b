"""What `tune` searches: stages of settings and an objective, all checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.parts.content import fingerprint
from harness.cell import Cell, Data, digest, without_paths
from harness.overrides import parse_overrides
from harness.registry import UsageError, did_you_mean, load
from harness.search.space import check_settings, joined, settings, stages_of
from methods.base import Stage
from results.metrics import METRICS, PIXEL_METRICS


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search for the knobs of one method on one data set."""

    cells: tuple[Cell, ...]
    """One a seed, with the knobs that the search starts from."""
    train_fingerprint: str
    """Of all training images, held-out ones too."""
    stages: tuple[Stage, ...]
    objective: tuple[str, ...]
    budget: int
    """How many settings are tried, stage by stage."""

    @property
    def first(self) -> Cell:
        """What all seeds share."""
        return self.cells[0]

    @property
    def label(self) -> str:
        """The study in one line."""
        return f"{self.first.data.label} {self.first.method}"

    @property
    def key(self) -> str:
        """Names what a choice is for."""
        return choice_key(self.first, self.train_fingerprint)

    @property
    def most_k(self) -> int:
        """The largest k of the space."""
        given = [getattr(self.first.knobs, "k", 0)]
        return max(given + [k for stage in self.stages for k in stage.grid.get("k", ())])

    def at(self, knobs: Any) -> list[Cell]:
        """The cells of one setting, one a seed."""
        return [replace(cell, knobs=knobs) for cell in self.cells]

    def described(self) -> dict[str, Any]:
        """What decides the choice, for the record and to compare."""
        return {
            "objective": list(self.objective),
            "space": [
                {"grid": {n: list(v) for n, v in stage.grid.items()}, "fixed": dict(stage.fixed)}
                for stage in self.stages
            ],
            "seeds": [cell.seed for cell in self.cells],
            "held": list(self.first.data.held or ()),
            "validation_fingerprint": self.first.data.test_fingerprint,
        }


def choice_key(cell: Cell, train_fingerprint: str) -> str:
    """Names what a choice is for: the data, what is learned of it, and the knobs to start from."""
    return digest(
        {
            "train": train_fingerprint,
            "method": cell.method,
            "config": without_paths(cell.config),
            "knobs": dataclasses.asdict(cell.knobs),
            "weights": cell.weights_sha256,
        }
    )


def objective_of(text: str, no_pixel_reason: str) -> tuple[str, ...]:
    """Metrics joined by +; UsageError for an unknown one, or one that the data can't have."""
    names = tuple(text.split("+"))
    for name in names:
        if name not in METRICS:
            raise UsageError(f"--objective {text}: {did_you_mean(name, [*METRICS])}")
        if name in PIXEL_METRICS and no_pixel_reason:
            raise UsageError(
                f"--objective {text}: {no_pixel_reason}; choose one that starts with image_"
            )
    return names


def plan_studies(
    cells: Sequence[Cell], space: Sequence[str], objective: str, *, joint: bool, named: bool
) -> list[Study]:
    """The studies of a plan made with held-out images, one for each data set and method.

    Methods that have nothing to tune are refused where the user `named` them, else left out.
    UsageError, in one line, for whatever can't be searched.
    """
    methods = list(dict.fromkeys(cell.method for cell in cells))
    given = parse_overrides(space, methods, option="--space", example="lafite.t=50:600:50")
    groups: dict[tuple[Data, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.method), []).append(cell)
    studies = []
    for (data, method), seeds in groups.items():
        first = seeds[0]
        if not (named or given[method] or load("methods", method).search(first.config)):
            continue
        benchmark = data.open()
        stages = stages_of(method, first.config, first.knobs, given[method])
        budget = sum(len(settings(stage, first.knobs)) for stage in stages)
        stages = joined(stages) if joint else stages
        check_settings(stages, first)
        studies.append(
            Study(
                cells=tuple(seeds),
                train_fingerprint=fingerprint(benchmark, benchmark.train(data.categories)),
                stages=stages,
                objective=objective_of(objective, benchmark.no_pixel_reason),
                budget=budget,
            )
        )
    return studies
