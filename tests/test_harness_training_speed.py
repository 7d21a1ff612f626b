"""`speed --op training`: every way runs on the machine at hand, and what can't says why."""

from __future__ import annotations

import pytest
import torch

from harness import training_speed
from harness.training_speed import WAYS, Runner, race


def test_every_way_is_timed_and_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_speed, "NETWORKS", {"uniad": "network"})
    monkeypatch.setenv("PATH", "")  # so that no compiler is found; compiling takes a minute
    lines = list(race("smoke"))
    assert "0.1 million parameters, batch 8" in lines[1]
    timed = {line[:22].strip(): line for line in lines[3:]}
    assert list(timed) == [way.name for way in WAYS] + ["1 worker, 1 thread", "2 workers, 1 thread"]
    for way in WAYS:
        line = timed[way.name]
        assert ("skipped: no C++ compiler" in line) == way.compiled
        assert ("GiB" in line) != way.compiled
    assert timed[WAYS[0].name].count("1.00 x") == 2


def test_a_way_is_what_its_name_says() -> None:
    for way in (WAYS[0], training_speed.ALL):
        runner = Runner("lafite", "smoke", way, torch.device("cpu"))
        seen: list[bool] = []
        runner.network.enter.register_forward_hook(  # type: ignore[union-attr]
            lambda module, inputs, output, seen=seen: seen.append(
                inputs[0].is_contiguous() and output.dtype == torch.float32
            )
        )
        before = {name: value.clone() for name, value in runner.network.state_dict().items()}
        assert runner.train() > 0
        assert set(seen) == {way is WAYS[0]}
        after = runner.network.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before), "it trains"
        assert runner.optimiser.defaults["fused"] is way.fused
