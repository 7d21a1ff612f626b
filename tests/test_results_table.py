"""Parts are written whole or not at all, once, and read back with every failure that matters."""

from __future__ import annotations

import errno
import multiprocessing
import os
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_rows import NOON, made_row

from results import table
from results.identity import ADDED


def _row(**changes):
    row = made_row(cell_id="c1", category="disc", value=0.75, started_at=NOON)
    return row | changes


def _failure(minute, **changes):
    later = NOON + timedelta(minutes=minute)
    empty = {"category": None, "metric": None, "value": None, "status": "error"}
    return _row(**empty | {"finished_at": later} | changes)


def _names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [_row(), _row(metric="pixel_ap", value=None, reason="no masks")]
    table.write_part(table.part_path(tmp_path, "c1"), rows)
    assert table.read(tmp_path).drop(ADDED).to_dicts() == rows
    assert _names(tmp_path) == ["c1.parquet"]
    metadata = pq.read_schema(tmp_path / "parts/c1.parquet").metadata
    assert metadata[b"lafite_bench.schema_version"] == str(table.SCHEMA_VERSION).encode()
    assert metadata[b"lafite_bench.producer"] == b"lafite-bench"


@pytest.mark.parametrize(
    "row, message",
    [
        (_row(recall=1.0), "row 0: missing or unknown: recall"),
        ({k: v for k, v in _row().items() if k != "seed"}, "row 0: missing or unknown: seed"),
        (_row(value=float("nan")), "value is nan; write null and a reason"),
        (_row(fit_seconds=float("inf")), "fit_seconds is inf"),
        (_row(seed="zero"), "c1.parquet: .*'zero'"),
        (_row(method=None), "c1.parquet: Column 'method' is declared non-nullable"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        table.write_part(tmp_path / "c1.parquet", [row])
    assert _names(tmp_path) == []


def test_first_writer_wins_and_replace_redoes(tmp_path):
    path = table.part_path(tmp_path, "c1")
    table.write_part(path, [_row(value=0.1)])
    before = path.read_bytes()
    table.write_part(path, [_row(value=0.2)])
    assert path.read_bytes() == before
    table.write_part(path, [_row(value=0.2)], replace=True)
    assert table.read(tmp_path)["value"].to_list() == [0.2]
    assert _names(tmp_path) == ["c1.parquet"]


def _write_when_all_are_ready(path, seed, barrier):
    barrier.wait()
    table.write_part(path, [_row(seed=seed)] * 50)


def test_writers_at_the_same_time_leave_one_whole_part(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    path = table.part_path(tmp_path, "c1")
    arguments = [(path, seed, barrier) for seed in range(3)]
    writers = [context.Process(target=_write_when_all_are_ready, args=a) for a in arguments]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert table.read(tmp_path)["seed"].n_unique() == 1
    assert _names(tmp_path) == ["c1.parquet"]


def test_a_file_system_without_links_gets_a_rename(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    table.write_part(table.part_path(tmp_path, "c1"), [_row(value=0.1)])
    table.write_part(table.part_path(tmp_path, "c1"), [_row(value=0.2)])
    assert table.read(tmp_path)["value"].to_list() == [0.1]
    assert _names(tmp_path) == ["c1.parquet"]


def test_full_disk_shows_no_torn_part(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; [\d,]+ bytes.*c1\.parquet") as got:
        table.write_part(table.part_path(tmp_path, "c1"), [_row()])
    assert got.value.errno == errno.ENOSPC
    assert _names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "parts").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"parts/c1\.parquet"):
        table.write_part(table.part_path(tmp_path, "c1"), [_row()])


def test_read_ignores_temporary_names_and_shows_the_newest_failure(tmp_path):
    table.write_part(table.part_path(tmp_path, "c1"), [_row()])
    failures = [
        ("c1", 1, _failure(9)),
        ("c2", 1, _failure(1, cell_id="c2", error="first")),
        ("c2", 10, _failure(3, cell_id="c2", error="third", status="diverged")),
        ("c2", 2, _failure(2, cell_id="c2", error="second")),
    ]
    for cell_id, attempt, row in failures:
        table.write_part(table.failure_path(tmp_path, cell_id, attempt), [row])
    (tmp_path / "parts/.c3.parquet.123.tmp").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match="no results here"):
        table.read(tmp_path / "nowhere")
    frame = table.read(tmp_path)
    assert frame.select("cell_id", "status", "error").rows() == [
        ("c1", "done", None),
        ("c2", "diverged", "third"),
    ]


@pytest.mark.parametrize(
    "version, message",
    [
        ("999", "schema version 999 .* that wrote it, or run"),
        ("", "not written by lafite-bench"),
        ("1", "schema version 1 with 1 columns, not of"),
        (None, "cannot be read.*run the same command"),
    ],
)
def test_a_part_that_is_damaged_or_foreign_is_named_and_others_are_read(tmp_path, version, message):
    table.write_part(table.part_path(tmp_path, "c1"), [_row()])
    table.write_part(table.failure_path(tmp_path, "c2", 1), [_failure(1, cell_id="c2")])
    path = table.part_path(tmp_path, "c3")
    metadata = {"lafite_bench.schema_version": version} if version else {}
    pq.write_table(pa.table({"value": [1.0]}).replace_schema_metadata(metadata), path)
    if version is None:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"c3\.parquet: .*{message}"):
        table.read(tmp_path)
    assert table.read(tmp_path, only={"c1", "c2"})["cell_id"].to_list() == ["c1", "c2"]


def test_scores_are_kept_per_image(tmp_path):
    path = table.scores_path(tmp_path, "c1")
    row = {"cell_id": "c1", "key": "disc/test/cut/000.png", "category": "disc", "defect": "cut"}
    row |= {"label": True, "score": 0.5}
    table.write_rows(path, [row], table.SCORES_SCHEMA)
    assert pq.read_table(path).to_pylist() == [row]
    assert table.read_scores(tmp_path).to_dicts() == [row]
