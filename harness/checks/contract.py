"""Promises that every method keeps, on the made data set `shapes` with its `smoke` preset.

The tests hold ours to them; `lafite-bench check-method` holds a method from elsewhere to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as state_of
from safetensors.torch import save as bytes_of

from harness.checks.subject import (
    BRIEF_SEED,
    SMOKE,
    Subject,
    anomalous_share,
    aurocs,
    inputs,
    mean_image_auroc,
    score,
    unseen,
)
from methods.base import BankSearch, Method, Preset, SearchesBank

IMAGES = 96
"""Training images for which ranges are checked."""


class NotAsked(Exception):
    """A promise that does not apply to this method, and why."""


class Promise(NamedTuple):
    """A promise of every method, and advice to a method that breaks it."""

    name: str
    says: str
    mend: str
    check: Callable[[Subject], None]
    """AssertionError where it is broken, NotAsked where it does not apply."""


PROMISES: list[Promise] = []


def promise(mend: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Adds a check to the promises; its docstring says what is promised."""

    def added(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        says = (check.__doc__ or "").rstrip(".")
        PROMISES.append(Promise(check.__name__, says, mend, check))
        return check

    return added


def kept(subject: Subject) -> Iterator[tuple[Promise, BaseException | None]]:
    """Each promise, with what speaks against it: NotAsked, or anything that it raised."""
    for asked in PROMISES:
        try:
            asked.check(subject)
        except Exception as error:
            yield asked, error
        else:
            yield asked, None


def asks(condition: object, what: str) -> None:
    """AssertionError that says what is the matter, where the condition does not hold."""
    if not condition:
        raise AssertionError(what)


@promise("presets map names to Preset(config, knobs); paper has the defaults, smoke takes seconds")
def presets(subject: Subject) -> None:
    """There are the presets paper and smoke, of its own settings, and in their ranges."""
    declared = subject.declared
    method = declared.method
    asks({"paper", SMOKE} <= set(declared.presets), f"there are only {sorted(declared.presets)}")
    defaults = Preset(method.Config(), method.Knobs())
    asks(declared.presets["paper"] == defaults, "paper differs from the defaults of the fields")
    for name, preset in declared.presets.items():
        own = isinstance(preset.config, method.Config) and isinstance(preset.knobs, method.Knobs)
        asks(own, f"{name} is not of its own Config and Knobs")
        declared.check(preset.config, preset.knobs, IMAGES)


@promise("@dataclass(frozen=True, kw_only=True), a default for each field, no name in both")
def settings(subject: Subject) -> None:
    """Config and Knobs are frozen, keyword-only and have defaults."""
    kinds: list[Any] = [subject.declared.method.Config, subject.declared.method.Knobs]
    for kind in kinds:
        asks(all(f.kw_only for f in dataclasses.fields(kind)), f"{kind.__name__}: not keyword-only")
        asks(kind.__dataclass_params__.frozen, f"{kind.__name__} can be changed")
        kind()
    config, knobs = ({f.name for f in dataclasses.fields(kind)} for kind in kinds)
    asks(not config & knobs, f"--set can't tell apart {sorted(config & knobs)}")


@promise("do not subclass a method; compose parts")
def final(subject: Subject) -> None:
    """The method is final."""
    try:
        type("Derived", (subject.declared.method,), {})
    except TypeError as error:
        asks("final" in str(error), str(error))
        return
    raise AssertionError("it can be subclassed")


@promise("cost(config, images) counts what learning takes; see methods/parts/cost.py")
def cost(subject: Subject) -> None:
    """The declared cost grows with the number of images."""
    for name, preset in subject.declared.presets.items():
        some, more = (
            dataclasses.astuple(subject.declared.cost(preset.config, n)) for n in (100, 200)
        )
        grows = all(a <= b for a, b in zip(some, more, strict=True)) and some != more
        asks(grows, f"{name}: {some} for 100 images, {more} for 200")


@promise("list each grid from the cheapest value on, each value once and within `check`")
def stages(subject: Subject) -> None:
    """Every setting of the search is in range, and the cheapest come first."""
    declared = subject.declared
    fields = {f.name for f in dataclasses.fields(declared.method.Knobs)}
    for name, (config, knobs) in declared.presets.items():
        for stage in declared.stages(config, knobs):
            known = stage.grid and stage.grid.keys() | stage.fixed.keys() <= fields
            asks(known, f"{name}: a stage of {sorted(stage.grid)} searches no knob")
            for knob, values in stage.grid.items():
                rising = list(values) == sorted(set(values)) and len(values) > 1
                asks(rising, f"{name}: {knob} tries {values}")
                for value in values:
                    tried = dataclasses.replace(knobs, **{**stage.fixed, knob: value})
                    declared.check(config, tried, IMAGES)


@promise("score gives Scores(maps (B, S, S), images (B,)) of float32, S the side of what it reads")
def shapes(subject: Subject) -> None:
    """Scores are finite, of 32 bits, and of the promised shapes."""
    maps, images = subject.scored
    count, side = len(unseen()), subject.method.inputs(subject.config).side
    asks(maps.shape == (count, side, side), f"maps {tuple(maps.shape)}, not {(count, side, side)}")
    asks(images.shape == (count,), f"image scores {tuple(images.shape)}, not {(count,)}")
    asks(maps.dtype == images.dtype == torch.float32, f"{maps.dtype} and {images.dtype}")
    asks(maps.isfinite().all() and images.isfinite().all(), "there are NaN or infinite scores")
    asks(not maps.requires_grad, "maps carry gradients; score under torch.inference_mode()")


@promise("larger is more anomalous; look at the backbone's weights and at what fit keeps")
def learns(subject: Subject) -> None:
    """It tells normal from anomalous images."""
    # Random backbone weights, or a network that learned nothing, stay near 0.6 or below.
    found = mean_image_auroc(subject.scored.images)
    asks(found > subject.floor, f"image AUROC {found:.3f}, not above {subject.floor}")


@promise("maps have the image's orientation; look at how they are made large")
def locates(subject: Subject) -> None:
    """Maps are higher inside of the masks."""
    maps = subject.scored.maps
    inside = anomalous_share(maps.shape[-1], maps.shape[-1]) > 0
    within, outside = maps[inside].mean(), maps[~inside].mean()
    asks(within > outside + 0.1 * outside.abs(), f"{within:.4g} inside, {outside:.4g} outside")


@promise("look at the loss and at what of the network scores")
def trains(subject: Subject) -> None:
    """Gradient steps raise what it finds, beside a twin that takes none."""
    if not hasattr(subject.short, "learning_rate"):
        raise NotAsked("it is not trained by gradients")
    if subject.margins is None:
        raise NotAsked("a random network finds defects as well")
    trained, twin = aurocs(score(subject.method, subject.of_the_network)), subject.twin(0)
    image, pixel = subject.margins
    better = trained.image > twin.image + image and trained.pixel > twin.pixel + pixel
    asks(better, f"trained {trained}, untrained {twin}")


@promise("tell Progress(stage='train', step, steps, loss) once an epoch; look at the rate")
def loss(subject: Subject) -> None:
    """The training loss falls, and is told once an epoch."""
    told = subject.learned[1]
    losses = [p.loss for p in told if p.stage == "train" and p.loss is not None]
    if not losses:
        raise NotAsked("it is not trained by gradients")
    asks(len(losses) == subject.config.epochs, f"{len(losses)} losses")
    asks(losses[-1] < losses[0], f"{losses[0]:.4g} at first, {losses[-1]:.4g} at last")


@promise("draw every random number from methods.parts.seeds.derive(self.seed, purpose)")
def repeats(subject: Subject) -> None:
    """The same seed gives the same scores."""
    first, second = subject.brief, subject.fitted(subject.short, BRIEF_SEED)[0]
    scores, again = score(first, subject.knobs), score(second, subject.knobs)
    asks(torch.equal(scores.maps, again.maps), "maps differ")
    asks(torch.equal(scores.images, again.images), "image scores differ")


@promise("derive what is drawn from self.seed; a method without any draw has one seed only")
def seeds(subject: Subject) -> None:
    """Another seed gives another model."""
    other = subject.fitted(subject.short, BRIEF_SEED + 1)[0]
    first, second = subject.brief.state_dict(), other.state_dict()
    asks(first.keys() == second.keys(), "the states have other names")
    same = all(torch.equal(first[key], second[key]) for key in first)
    asks(not same, "the seed changes nothing")


@promise("register what fit learns as parameters or buffers")
def stores(subject: Subject) -> None:
    """A stored state gives equal scores."""
    state = {key: value.contiguous() for key, value in subject.method.state_dict().items()}
    fresh: Method = subject.declared.method(subject.config, seed=subject.method.seed)
    fresh.load_state_dict(state_of(bytes_of(state)))
    again = score(fresh, subject.knobs)
    asks(torch.equal(again.maps, subject.scored.maps), "maps differ")
    asks(torch.equal(again.images, subject.scored.images), "image scores differ")


@promise("score each image by itself; draw noise once, in __init__, for all images")
def batch_size(subject: Subject) -> None:
    """Neither the size of a batch, nor the order of images, nor the global state of random draws
    changes scores."""
    # Every third image, so that one by one does not take long.
    order = list(range(len(unseen())))[::-3]
    for size in (1, 32):
        torch.manual_seed(size)
        again = score(subject.method, subject.knobs, order, size)
        whole = subject.scored
        torch.testing.assert_close(again.images, whole.images[order], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again.maps, whole.maps[order], rtol=1e-4, atol=1e-3)


@promise("clone before changing in place")
def unchanged(subject: Subject) -> None:
    """Scoring changes neither the state nor the inputs."""
    method = subject.method
    before = {key: value.clone() for key, value in method.state_dict().items()}
    values = inputs(method.inputs(method.config), "test")
    copied = values.clone()
    score(method, subject.knobs, range(4))
    state = method.state_dict()
    asks(all(torch.equal(state[key], before[key]) for key in before), "the state changed")
    asks(torch.equal(values, copied), "the inputs changed")


@promise("score(..., neighbours) is to give what a search of its own gives")
def neighbours(subject: Subject) -> None:
    """Scores with neighbours that were found before are those of a search of its own."""
    method, knobs = subject.method, subject.knobs
    if not isinstance(method, SearchesBank) or method.bank_search(knobs) is None:
        raise NotAsked("it searches no bank in this preset")
    values = inputs(method.inputs(method.config), "test")[:8]
    wide = BankSearch(knobs.coreset, k=9)
    found = method.neighbours(values, wide)
    asks(found.distances.shape == found.rows.shape, "distances and rows differ in shape")
    asks((found.distances.diff(dim=-1) >= 0).all(), "the nearest do not come first")
    for k in (1, 4):
        few = dataclasses.replace(knobs, k=k)
        wanted = method.bank_search(few)
        asks(wanted is not None and wide.serves(wanted), f"a search for 9 does not serve {few}")
        plain, shared = method.score(values, few), method.score(values, few, found)
        torch.testing.assert_close(shared.images, plain.images, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shared.maps, plain.maps, rtol=1e-4, atol=1e-4)
