"""`speed --op anomalib`: our half, its line of the table, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_cells import smoke_cells
from made_features import need_lite0

from harness.options import RaceOptions
from harness.plan import plan
from harness.registry import UsageError
from harness.speed import _anomalib, anomalib
from harness.subject import mean_image_auroc, unseen


def test_our_half_goes_from_files_to_scores(tmp_path: Path) -> None:
    need_lite0()
    cell = smoke_cells("padim")[0]
    side = anomalib._ours(cell, 1, tmp_path / "ours.npz")
    assert side.fit > 0 and side.scoring > 0 and side.peak >= side.imported > 0
    with np.load(tmp_path / "ours.npz") as scores:
        assert scores["maps"].shape == (len(unseen()), 128, 128)
        auroc = 100 * mean_image_auroc(torch.from_numpy(scores["images"]))
    line = anomalib._line(cell, "ours", side, 1.0, tmp_path / "ours.npz")
    assert line.startswith("padim      ours")
    assert f"{auroc:.2f}" in line.split()


def test_the_settings_are_within_range() -> None:
    need_lite0()
    for method, settings in anomalib.SETTINGS.items():
        plan(anomalib.selection("shapes", method, settings))


def test_without_an_anomalib_a_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_anomalib.VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"name the python .* LAFITE_BENCH_ANOMALIB"):
        next(anomalib.race(RaceOptions(op="anomalib", points="shapes"), print))


def test_a_python_without_anomalib_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_lite0()
    monkeypatch.setenv(_anomalib.VARIABLE, sys.executable)
    cell = smoke_cells("padim")[0]
    with pytest.raises(UsageError, match="No module named 'anomalib'") as caught:
        anomalib._theirs(cell, 1, tmp_path / "theirs.npz")
    assert "\n" not in str(caught.value)


def test_the_other_half_needs_nothing_that_anomalibs_environment_lacks() -> None:
    """Only anomalib itself is made up here."""
    code = (
        "import sys\n"
        "from unittest.mock import MagicMock\n"
        "for name in ('polars', 'ray', 'pyarrow', 'typer'): sys.modules[name] = None\n"
        "models = 'anomalib.models.image'\n"
        "for name in ('padim', 'patchcore'):\n"
        "    sys.modules[f'{models}.{name}.torch_model'] = MagicMock()\n"
        "import harness.speed._anomalib_side\n"
    )
    root = Path(anomalib.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
