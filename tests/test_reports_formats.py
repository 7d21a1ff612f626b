"""Number formats in rows: what was done, whatever was wished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_features import need_lite0

from harness.plan.options import Selection
from harness.plan.plan import plan
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import run
from harness.work.features import formats
from harness.work.place import Place
from kernels import _formats
from results.table import read


@pytest.mark.parametrize("native", [True, False])
def test_rows_say_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    need_lite0()
    monkeypatch.setattr(_formats, "native_bfloat16", lambda device: native)
    wanted = Selection(
        benchmarks=["shapes"], methods=["padim"], preset="smoke", seeds=1,
        overrides=["padim.precision=bfloat16"],
    )  # fmt: skip
    cells = plan(wanted)
    place = Place(store=Store(tmp_path / "out").prepare(), cache=FeatureCache(root=tmp_path / "c"))
    assert [error for _, error in run(cells, place)] == [None]
    done = "bfloat16 on float32 features" if native else "float32"
    assert formats(cells[0], torch.device("cpu")) == done
    assert read(tmp_path / "out")["precision"].unique().to_list() == [done]
    # The wish is part of what a row is, what was done is not: the same cell either way.
    assert cells[0].cell_id == plan(wanted)[0].cell_id
