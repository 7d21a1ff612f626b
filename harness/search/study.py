"""A study of `tune`: the knobs of one method on one data set, and the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.parts.content import fingerprint
from benchmarks.parts.synthesis.families import LEFT_OUT, MADE, PAPER
from harness.plan.cell import Cell, Data, Held, digest, without_paths
from harness.plan.datasets import Count
from harness.plan.options import SELECTORS, Say, SearchOptions, Selection
from harness.plan.overrides import parse_overrides
from harness.plan.plan import plan
from harness.plan.registry import UsageError, did_you_mean, load
from harness.search.space import check_settings, joined, reachable, stages_of
from harness.store.store import Store
from methods.base import BankSearch, SearchesBank, Stage, quiet
from results.metrics import METRICS, PIXEL_METRICS

RANKED = "image_auroc"
"""The metric that ranks of paired image scores stand for: their mean is its distance from 0.5."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search for the knobs of one method on one data set."""

    cells: tuple[Cell, ...]
    """One a seed, with the knobs that the search starts from."""
    extra: tuple[Cell, ...] = ()
    """Cells of further folds and left-out halves: they vote, and are not reported."""
    train_fingerprint: str
    """The fingerprint of all training images, held-out ones too."""
    stages: tuple[Stage, ...]
    objective: tuple[str, ...]
    selector: str = "robust"

    @property
    def first(self) -> Cell:
        """The first seed's cell, for what all seeds share."""
        return self.cells[0]

    @property
    def every(self) -> tuple[Cell, ...]:
        """All that is trained for the choice."""
        return self.cells + self.extra

    @property
    def label(self) -> str:
        """The study in one line."""
        return f"{self.first.data.label} {self.first.method}"

    @property
    def key(self) -> str:
        """Names what a choice is for."""
        return choice_key(self.first, self.train_fingerprint)

    def at(self, knobs: Any) -> list[Cell]:
        """The cells of one setting: one a seed, then those that have a vote beside them."""
        return [replace(cell, knobs=knobs) for cell in self.every]

    def missing(self, settings: Sequence[Any], store: Store) -> list[Any]:
        """The settings (Knobs) of which the store lacks a cell."""
        return [knobs for knobs in settings if not all(map(store.done, self.at(knobs)))]

    def bank_search(self, knobs: Any) -> BankSearch | None:
        """The search in a bank that serves this setting, and as many others as can be."""
        wanted = bank_search(self.first.method, knobs)
        return wanted and max(search for search in self._bank_searches if search.serves(wanted))

    @cached_property
    def _bank_searches(self) -> set[BankSearch]:
        every = reachable(self.stages, self.first.knobs)
        searches = (bank_search(self.first.method, knobs) for knobs in every)
        return {search for search in searches if search is not None}

    def described(self) -> dict[str, Any]:
        """The facts that decide the choice, for the record and to compare."""
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
            "held": list(self.first.data.held or ())[:5],
            "validation_fingerprint": self.first.data.test_fingerprint,
            "profile": self.first.profile,
            "selector": self.selector,
            "also_validated": [cell.data.test_fingerprint for cell in self.extra],
        }


def bank_search(method: str, knobs: Any) -> BankSearch | None:
    """The search in a bank that a setting of the method needs, if it has one."""
    kind = load("methods", method).method
    return kind.bank_search(knobs) if issubclass(kind, SearchesBank) else None


def choice_key(cell: Cell, train_fingerprint: str) -> str:
    """Names what a choice is for: the data, what is learned of it, and the knobs to start from."""
    return digest(
        {
            "train": train_fingerprint,
            "method": cell.method,
            "config": without_paths(cell.config),
            "knobs": asdict(cell.knobs),
            "weights": cell.weights_sha256,
        }
        | cell.revision
    )


def held_by(options: SearchOptions) -> Held:
    """The images that a search holds out, and the families of anomalies that it makes of them."""
    if options.selector not in SELECTORS:
        raise UsageError(
            f"--selector {options.selector}: {did_you_mean(options.selector, SELECTORS)}"
        )
    families = (PAPER,) if options.selector == PAPER else (*MADE, LEFT_OUT)
    return Held(options.share, anomalies=options.anomalies, families=families)


def plan_studies(
    selection: Selection, options: SearchOptions, *, say: Say = quiet, count: Count = quiet
) -> list[Study]:
    """The studies of a selection, one for each data set and method.

    Methods that have nothing to tune are refused where the selection names them, else left out.
    UsageError, in one line, for whatever can't be searched. `say` and `count` as for `plan`.
    """
    held = held_by(options)
    cells = plan(selection, held=held, say=say, count=count)
    extra = _plan_extra(selection, options, cells, held, say)
    methods = list(dict.fromkeys(cell.method for cell in cells))
    spaces = parse_overrides(options.space, methods, option="--space", example="lafite.t=50:600:50")
    groups: dict[tuple[Data, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.method), []).append(cell)
    return [
        _study(seeds, [cell for cell in extra if _beside(cell, seeds[0])], spaces[method], options)
        for (_, method), seeds in groups.items()
        if selection.methods
        or spaces[method]
        or load("methods", method).stages(seeds[0].config, seeds[0].knobs)
    ]


def _plan_extra(
    selection: Selection, options: SearchOptions, cells: Sequence[Cell], held: Held, say: Say
) -> list[Cell]:
    """Further cells that vote: of other folds, and without half of the categories.

    UsageError where there is nothing to leave out.
    """
    extra: list[Cell] = []
    for fold in range(1, options.folds):
        other = plan(selection, held=held._replace(fold=fold))
        extra += [_called(cell, f"fold {fold}") for cell in other]
    if not options.leave_out:
        return extra
    if options.selector == PAPER:
        raise UsageError("--leave-out: the paper makes its anomalies; take --selector robust")
    for name, categories in dict.fromkeys((c.data.benchmark, c.data.categories) for c in cells):
        if len(categories) == 1:
            raise UsageError(
                f"--leave-out: {name} is searched with one category; there is nothing to leave out"
            )
        for half in (categories[::2], categories[1::2]):
            part = replace(selection, benchmarks=[name], categories=list(half))
            learned = plan(part, held=held._replace(families=(LEFT_OUT,)), say=say)
            extra += [
                _called(cell, f"{len(half)} of {len(categories)} categories") for cell in learned
            ]
    return extra


def _called(cell: Cell, name: str) -> Cell:
    return replace(cell, variant=", ".join(filter(None, (cell.variant, name))))


def _beside(cell: Cell, first: Cell) -> bool:
    """Whether a cell votes on the choice for another: of the same method, and of its categories."""
    same = (cell.data.benchmark, cell.method) == (first.data.benchmark, first.method)
    return same and set(cell.data.categories) <= set(first.data.categories)


def _study(
    seeds: Sequence[Cell], extra: Sequence[Cell], space: dict[str, str], options: SearchOptions
) -> Study:
    first = seeds[0]
    benchmark = first.data.open()
    stages = stages_of(first.method, first.config, first.knobs, space)
    if options.joint:
        stages = joined(stages)
    for cell in (first, *extra):
        check_settings(stages, cell)
    objective = objective_of(options.objective, benchmark.no_pixel_reason)
    if options.selector != PAPER and objective != (RANKED,):
        raise UsageError(
            f"--objective {options.objective}: the robust selector ranks image scores; "
            f"add --selector {PAPER}"
        )
    return Study(
        cells=tuple(seeds),
        extra=tuple(extra),
        train_fingerprint=fingerprint(benchmark, benchmark.train(first.data.categories)),
        stages=stages,
        objective=objective,
        selector=options.selector,
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
