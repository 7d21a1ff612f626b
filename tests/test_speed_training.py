"""`speed --op training`: every way runs on the machine at hand, and what can't says why."""

from __future__ import annotations

import pytest
import torch

from harness.options import RaceOptions
from harness.speed import training
from harness.speed.training import WAYS, Runner, race
from kernels._formats import native_bfloat16, number_format


@pytest.mark.slow
def test_every_way_is_timed_and_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "NETWORKS", {"uniad": "network"})
    monkeypatch.setenv("LAFITE_ACCELERATE", "1")  # so that what `race` sets is undone
    monkeypatch.setenv("PATH", "")  # so that no compiler is found; compiling takes a minute
    lines = list(race(RaceOptions(preset="smoke"), print))
    assert "0.1 million parameters, batch 8" in lines[1]
    timed = {line[:22].strip(): line for line in lines[3:]}
    ranks = [f"{count}, batch {batch}" for batch in (8, 64) for count in ("1 worker", "2 workers")]
    assert list(timed) == [way.name for way in WAYS] + ranks
    for way in WAYS:
        line = timed[way.name]
        emulated = way.bfloat16 and not native_bfloat16(torch.device("cpu"))
        assert ("skipped: no fast products of bfloat16" in line) == (emulated and not way.compiled)
        assert ("skipped: no C++ compiler" in line) == way.compiled
        assert ("GiB" in line) != (way.compiled or emulated)
    assert timed[WAYS[0].name].count("1.00 x") == 2


@pytest.mark.parametrize("way", [WAYS[0], training.ON_CPU, WAYS[1]], ids=lambda w: w.name)
def test_a_way_is_what_its_name_says(way: training.Way) -> None:
    runner = Runner("lafite", "smoke", way, torch.device("cpu"))
    seen: list[tuple[bool, torch.dtype]] = []
    runner.network.enter.register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, output: seen.append((output.is_contiguous(), output.dtype))
    )
    before = {name: value.clone() for name, value in runner.network.state_dict().items()}
    assert runner.train() > 0
    wished = "bfloat16" if way.bfloat16 else "float32"
    kind = getattr(torch, number_format(wished, torch.device("cpu")))
    assert set(seen) == {(not way.channels_last, kind)}
    after = runner.network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before), "it trains"
    assert runner.recipe.build(runner.network).defaults["fused"] is way.fused
