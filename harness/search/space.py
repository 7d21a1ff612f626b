"""The settings that a search may try, in stages, all checked before any work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.plan.cell import Cell
from harness.plan.overrides import field_types, typed
from harness.plan.registry import UsageError, did_you_mean, load
from methods.base import Stage


def stages_of(method: str, config: Any, knobs: Any, space: Mapping[str, str]) -> tuple[Stage, ...]:
    """A method's stages with the user's grids in place of its own; UsageError for a bad space.

    A knob that the method does not search comes as a stage of its own, after the others.
    """
    grids = {name: _grid(method, knobs, name, text) for name, text in space.items()}
    stages = [
        stage._replace(grid={name: grids.get(name, values) for name, values in stage.grid.items()})
        for stage in load("methods", method).stages(config, knobs)
    ]
    searched = {name for stage in stages for name in stage.grid}
    stages += [Stage({name: values}) for name, values in grids.items() if name not in searched]
    for name, values in (entry for stage in stages for entry in stage.grid.items()):
        if not values:
            raise UsageError(
                f"{method}.{name}: no values to try; give some, --space {method}.{name}=..."
            )
    return tuple(stages)


def joined(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """All combinations at once."""
    return (Stage({name: values for stage in stages for name, values in stage.grid.items()}),)


def settings(stage: Stage, start: Any) -> list[Any]:
    """The stage's settings, the cheapest first; other knobs as in `start`."""
    names = list(stage.grid)
    return [
        replace(start, **{**stage.fixed, **dict(zip(names, values, strict=True))})
        for values in itertools.product(*stage.grid.values())
    ]


def with_anchor(stage: Stage, start: Any) -> list[Any]:
    """The stage's settings, and where it starts from if that is none of them."""
    anchor, proposed = replace(start, **stage.fixed), settings(stage, start)
    return proposed if anchor in proposed else [anchor, *proposed]


def reachable(stages: Sequence[Stage], start: Any) -> Iterator[Any]:
    """Every setting of every stage after every outcome of the stages before it."""
    outcomes = [start]
    for stage in stages:
        following = stage._replace(fixed={})
        for knobs in outcomes:
            yield from with_anchor(stage, knobs)
        outcomes = [after for knobs in outcomes for after in with_anchor(following, knobs)]


def check_settings(stages: Sequence[Stage], cell: Cell) -> None:
    """UsageError, in one line, for the first setting that the search might meet and can't score."""
    check = load("methods", cell.method).check
    for knobs in reachable(stages, cell.knobs):
        try:
            check(cell.config, knobs, cell.data.train_images)
        except ValueError as error:
            raise UsageError(f"--space of {cell.method} on {cell.data.name}: {error}") from None


def _grid(method: str, knobs: Any, name: str, text: str) -> tuple[Any, ...]:
    """`1,3,5` or `start:stop:step`, both ends included, typed by the knob."""
    kinds = field_types(type(knobs))
    option = f"--space {method}.{name}={text}"
    if name not in kinds:
        raise UsageError(f"{option}: no such knob; {did_you_mean(name, kinds)}")
    try:
        words = _range(text) if text.count(":") == 2 else [part for part in text.split(",") if part]
        return tuple(dict.fromkeys(typed(word, kinds[name]) for word in words))
    except ValueError as error:
        raise UsageError(f"{option}: {error}; write 1,3,5 or start:stop:step") from None


def _range(text: str) -> list[str]:
    """The values of `start:stop:step`."""
    start, stop, step = (float(part) for part in text.split(":"))
    if step <= 0:
        raise ValueError("the step must be above 0")
    count = math.floor((stop - start) / step + 1e-9) + 1
    # Rounded, so that 0.1:0.3:0.1 has 0.3 and not 0.30000000000000004.
    return [f"{round(start + i * step, 10):.10g}" for i in range(max(0, count))]
