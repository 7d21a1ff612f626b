"""What `tune` searches: the knobs of one method on one data set, and by which objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.parts.content import fingerprint
from harness.cell import Cell, Data, digest, without_paths
from harness.options import SearchOptions
from harness.overrides import parse_overrides
from harness.registry import UsageError, did_you_mean, load
from harness.search.space import check_settings, joined, reachable, settings, stages_of
from methods.base import BankSearch, SearchesBank, Stage, identifying
from results.metrics import METRICS, PIXEL_METRICS
from results.profiles import DEFAULT_PROFILE


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

    def at(self, knobs: Any) -> list[Cell]:
        """The cells of one setting, one a seed."""
        return [replace(cell, knobs=knobs) for cell in self.cells]

    def bank_search(self, knobs: Any) -> BankSearch | None:
        """The search in a bank that serves this setting, and as many others as can be."""
        wanted = _bank_search(self.first.method, knobs)
        return wanted and max(search for search in self._bank_searches if search.serves(wanted))

    @cached_property
    def _bank_searches(self) -> set[BankSearch]:
        every = reachable(self.stages, self.first.knobs)
        searches = (_bank_search(self.first.method, knobs) for knobs in every)
        return {search for search in searches if search is not None}

    def described(self) -> dict[str, Any]:
        """What decides the choice, for the record and to compare."""
        profile = self.first.profile
        return {
            "objective": list(self.objective),
            "space": [
                {
                    "grid": {name: list(values) for name, values in stage.grid.items()},
                    "fixed": dict(stage.fixed),
                }
                for stage in self.stages
            ],
            "seeds": [cell.seed for cell in self.cells],
            "held": list(self.first.data.held or ()),
            "validation_fingerprint": self.first.data.test_fingerprint,
        } | ({} if profile == DEFAULT_PROFILE else {"profile": profile})


def _bank_search(method: str, knobs: Any) -> BankSearch | None:
    kind = load("methods", method).method
    return kind.bank_search(knobs) if issubclass(kind, SearchesBank) else None


def choice_key(cell: Cell, train_fingerprint: str) -> str:
    """Names what a choice is for: the data, what is learned of it, and the knobs to start from."""
    return digest(
        {
            "train": train_fingerprint,
            "method": cell.method,
            "config": without_paths(cell.config),
            "knobs": identifying(cell.knobs),
            "weights": cell.weights_sha256,
        }
        | cell.revision
    )


def plan_studies(cells: Sequence[Cell], options: SearchOptions, *, named: bool) -> list[Study]:
    """The studies of a plan made with held-out images, one for each data set and method.

    Methods that have nothing to tune are refused where the user `named` them, else left out.
    UsageError, in one line, for whatever can't be searched.
    """
    methods = list(dict.fromkeys(cell.method for cell in cells))
    spaces = parse_overrides(options.space, methods, option="--space", example="lafite.t=50:600:50")
    groups: dict[tuple[Data, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.method), []).append(cell)
    return [
        _study(seeds, spaces[method], options)
        for (_, method), seeds in groups.items()
        if named or spaces[method] or load("methods", method).search(seeds[0].config)
    ]


def _study(seeds: Sequence[Cell], space: dict[str, str], options: SearchOptions) -> Study:
    first = seeds[0]
    benchmark = first.data.open()
    stages = stages_of(first.method, first.config, first.knobs, space)
    budget = sum(len(settings(stage, first.knobs)) for stage in stages)
    if options.joint or options.searcher:
        stages = joined(stages)
    check_settings(stages, first)
    return Study(
        cells=tuple(seeds),
        train_fingerprint=fingerprint(benchmark, benchmark.train(first.data.categories)),
        stages=stages,
        objective=objective_of(options.objective, benchmark.no_pixel_reason),
        budget=budget,
    )


def objective_of(text: str, no_pixel_reason: str) -> tuple[str, ...]:
    """Metrics joined by +; UsageError for an unknown one, or one that the data can't have."""
    names = tuple(text.split("+"))
    for name in names:
        if name not in METRICS:
            raise UsageError(f"--objective {text}: {did_you_mean(name, METRICS)}")
        if name in PIXEL_METRICS and no_pixel_reason:
            raise UsageError(
                f"--objective {text}: {no_pixel_reason}; choose one that starts with image_"
            )
    return names
