"""A study of `tune`: the knobs of one method on one data set, and what they are chosen on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.parts.content import fingerprint
from benchmarks.parts.synthesis.families import LEFT_OUT, MADE, PAPER
from benchmarks.parts.synthesis.pseudo import hold_out
from harness.plan.cell import Cell, Data, Held, digest, without_paths
from harness.plan.datasets import held_out_again
from harness.plan.options import PREFERENCES, SELECTORS, Say, SearchOptions
from harness.plan.overrides import parse_overrides
from harness.plan.registry import UsageError, did_you_mean, load
from harness.search.space import check_settings, joined, reachable, stages_of
from harness.store.store import Store
from harness.work.cost import feature_flops, fit_flops
from harness.work.features import feature_set
from methods.base import BankSearch, SearchesBank, Stage


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search for the knobs of one method on one data set; all else follows from its fields.

    UsageError, in one line, from what can't be searched: see `checked`.
    """

    cells: tuple[Cell, ...]
    """One a seed, with the knobs that the search starts from."""
    options: SearchOptions
    grids: Mapping[str, str]
    """Values of `--space`, by knob."""

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
    def published(self) -> bool:
        """Whether the paper's selector chooses: the highest mean on its own kind of anomaly."""
        return self.options.selector == PAPER

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the search; none where the method has no knobs and no grid was given."""
        first = self.first
        found = stages_of(first.method, first.config, first.knobs, self.grids)
        return joined(found) if self.options.joint and found else found

    @cached_property
    def folds(self) -> int:
        """How many shares are held out in turn: so many that each image is once, where learning is
        cheap, which is no more FLOPs than reading the training images; else, and as published, one.
        """
        train = feature_set(self.first, "train")
        if self.options.folds is not None:
            return self.options.folds
        if self.published or train is None or fit_flops(self.first) > feature_flops(train):
            return 1
        return folds_of(self.first.data, self.options.share)

    @cached_property
    def extra(self) -> tuple[Cell, ...]:
        """Cells of further folds and left-out halves: they vote, and are not reported."""
        return tuple(
            replace(cell, data=data, variant=", ".join(filter(None, (cell.variant, name))))
            for name, data in _other_data(self.first.data, self.folds, self.options)
            for cell in self.cells
        )

    @cached_property
    def train_fingerprint(self) -> str:
        """The fingerprint of all training images, held-out ones too."""
        benchmark = self.first.data.open()
        return fingerprint(benchmark, benchmark.train(self.first.data.categories))

    @cached_property
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
        return wanted and max(search for search in self.bank_searches if search.serves(wanted))

    @cached_property
    def bank_searches(self) -> set[BankSearch]:
        """The searches in a bank that the settings need."""
        every = reachable(self.stages, self.first.knobs)
        searches = (bank_search(self.first.method, knobs) for knobs in every)
        return {search for search in searches if search is not None}

    def described(self) -> dict[str, Any]:
        """The facts that decide the choice, as they are typed where they are options."""
        options = self.options
        return {
            "--space (or a grid of another version)": [
                dict(stage.grid) | {"fixed": dict(stage.fixed)} for stage in self.stages
            ],
            "--seeds": len(self.cells),
            "--metric-profile": self.first.profile,
            "--selector": options.selector,
            "--prefer": options.prefer,
            "--share": options.share,
            "--anomalies": options.anomalies,
            "--folds": self.folds,
            "--leave-out": options.leave_out,
            "other held-out images": [cell.data.test_fingerprint for cell in self.every],
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


def folds_of(data: Data, share: float) -> int:
    """So many folds of a share hold out each training image once."""
    benchmark = data.open()
    samples, fold = benchmark.train(data.categories), 0
    left = {sample.key for sample in samples}
    while left:
        left -= {sample.key for sample in hold_out(benchmark, samples, share, fold=fold)[1]}
        fold += 1
    return fold


def held_by(options: SearchOptions) -> Held:
    """The images that a search holds out, and the families of anomalies that it makes of them."""
    for option, word, known in (
        ("--selector", options.selector, SELECTORS),
        ("--prefer", options.prefer, PREFERENCES),
    ):
        if word not in known:
            raise UsageError(f"{option} {word}: {did_you_mean(word, known)}")
    families = (PAPER,) if options.selector == PAPER else (*MADE, LEFT_OUT)
    return Held(options.share, anomalies=options.anomalies, families=families)


def checked(studies: Sequence[Study], say: Say) -> list[Study]:
    """The studies that have something to search; `say` is told of the others, and of folds.

    UsageError, in one line, for the first setting that can't be scored, and where none is left.
    """
    silent = {study.first.method: study.label for study in studies if not study.stages}
    advice = "declares no knobs to tune; name some: --space {}.KNOB=VALUES"
    if len(found := [study for study in studies if study.stages]) == 0:
        raise UsageError("\n".join(f"{method} {advice.format(method)}" for method in silent))
    for method, label in silent.items():
        say(f"{label} {advice.format(method)}; it is left out")
    for study in found:
        if study.options.folds is None and study.folds > 1:
            folds = f"every normal image is held out once, in {study.folds} folds"
            say(f"{study.label}: {folds}, as learning is cheap; --folds 1 is quicker")
        for cell in study.every:
            check_settings(study.stages, cell)
    return found


def grids_of(cells: Sequence[Cell], options: SearchOptions) -> dict[str, dict[str, str]]:
    """Values of `--space`, by method and knob; UsageError for a method that is not searched."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    example = "lafite.t=50:600:50"
    return parse_overrides(options.space, methods, option="--space", example=example)


def by_row(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """Planned cells that differ in their seed alone, together."""
    rows: dict[tuple[Data, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.data, cell.method), []).append(cell)
    return [tuple(seeds) for seeds in rows.values()]


def _other_data(data: Data, folds: int, options: SearchOptions) -> Iterator[tuple[str, Data]]:
    """The data with other images held out, and without half of the categories, each by its name.

    Drawing anomalies is what a fold costs beside learning: where it has an image for each family of
    them, further ones have one of each image.
    """
    held, categories = held_by(options), data.categories
    normal = [s.category for s in data.open_held().validation(categories) if not s.anomalous]
    many = min(Counter(normal).values()) >= len(MADE)
    anomalies = 1 if many else options.anomalies
    for fold in range(1, folds):
        yield f"fold {fold}", held_out_again(data, held._replace(fold=fold, anomalies=anomalies))
    if not options.leave_out:
        return
    if options.selector == PAPER:
        raise UsageError("--leave-out: the paper makes its anomalies; take --selector anchored")
    if len(categories) == 1:
        raise UsageError(
            f"--leave-out: {data.label} is searched with one category; nothing can be left out"
        )
    for half in (categories[::2], categories[1::2]):
        learned = replace(data, categories=half)
        name = f"{len(half)} of {len(categories)} categories"
        yield name, held_out_again(learned, held._replace(families=(LEFT_OUT,)))
