"""The promises of `harness/checks/contract.py`, of every method, and of one that cheats."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
from made_features import need_lite0
from marking import slow_but

from harness.checks.contract import PROMISES, NotAsked, Promise
from harness.checks.subject import Subject
from harness.plan.registry import names
from methods.base import Scores

METHODS = names("methods")
LESS: dict[str, dict[str, Any]] = {
    # Networks from scratch need more than seconds for faint defects; untrained it has 0.5.
    "draem": {"floor": 0.6},
    # An encoder with random weights finds defects as well as one that learned directions for
    # seconds: more than chance is asked of it here, and that directions are learned has a test in
    # test_methods_patchsvdd.
    "patchsvdd": {"floor": 0.5, "margins": None},
    # Untrained, these two already tell places apart by how far features are from the origin.
    "fastflow": {"margins": (0.2, 0.05)},
    "uniad": {"margins": (0.2, 0.1)},
    # The preconditioned one is the Gaussian of the data before its first step: 0.87. That gradients
    # teach more than this has a test in test_methods_lafite.
    "lafite": {"unlearned": {"parameterisation": "noise"}},
}
"""What is asked less than of others, and why."""


LEARN_LONG = ("draem", "patchsvdd")
"""Networks that learn from pixels: a smoke fit takes a minute of a core."""
OF_DECLARATION = ("presets", "settings", "final", "cost", "stages")
"""Promises for which nothing has to learn."""
HELD = [
    pytest.param(
        asked, name, id=f"{asked.name}-{name}",
        marks=[pytest.mark.slow]
        if name in LEARN_LONG and asked.name not in OF_DECLARATION else [],
    )
    for asked in PROMISES
    for name in METHODS
]  # fmt: skip


@cache
def subject(name: str) -> Subject:
    """Learned once a session."""
    need_lite0()
    return Subject(name, **LESS.get(name, {}))


@pytest.mark.parametrize(("promise", "name"), HELD)
def test_a_method_keeps_its_promise(promise: Promise, name: str) -> None:
    try:
        promise.check(subject(name))
    except NotAsked as why:
        pytest.skip(f"{name}: {why}")


@pytest.mark.parametrize("name", slow_but(["uniad"], METHODS))
def test_that_training_helps_can_fail(name: str) -> None:
    asked = next(promise for promise in PROMISES if promise.name == "trains")
    method = subject(name)
    if not hasattr(method.short, "learning_rate") or method.margins is None:
        pytest.skip(f"{name} is not asked")
    still = dataclasses.replace(method.short, learning_rate=1e-12, **method.unlearned)
    idle = Subject(name, **LESS.get(name, {}))
    idle.__dict__["learned"] = method.fitted(still, seed=1)
    with pytest.raises(AssertionError, match="untrained"):
        asked.check(idle)


class Cheating:
    """Scores of a method that breaks promises."""

    def __init__(self, scores: Scores) -> None:
        self.scored = scores
        self.method = self
        self.config = None
        self.floor = 0.8

    def inputs(self, config: None) -> Any:
        return type("View", (), {"side": self.scored.maps.shape[-1]})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("shapes", lambda s: Scores(s.maps.double(), s.images), "float64"),
        ("shapes", lambda s: Scores(s.maps, s.images / 0), "NaN or infinite"),
        ("shapes", lambda s: Scores(s.maps[:, None], s.images), "maps"),
        ("learns", lambda s: Scores(s.maps, -s.images), "image AUROC 0"),
        ("locates", lambda s: Scores(s.maps.flip(0), s.images), "inside"),
    ],
)
def test_a_broken_promise_is_named(name: str, change: Any, said: str) -> None:
    asked = next(promise for promise in PROMISES if promise.name == name)
    with pytest.raises(AssertionError, match=said):
        asked.check(Cheating(change(subject("patchcore").scored)))  # type: ignore[arg-type]
    asked.check(Cheating(subject("patchcore").scored))  # type: ignore[arg-type]
