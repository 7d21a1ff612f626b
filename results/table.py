"""The long result table: a Parquet part for each cell, in it a row for each category and metric.

Under the output folder lie `parts/<cell_id>.parquet` (finished cells),
`failures/<cell_id>-<attempt>.parquet` (failed ones) and `scores/<cell_id>.parquet` (a row for each
test image).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from results.files import ResultsError, write_whole
from results.identity import told_apart

SCHEMA_VERSION = 1
PRODUCER = "lafite-bench"
DONE = "done"  # the status of a finished cell; any other status is a failure
AGAIN = "run the same command again, which moves it away and does its cell again"

_VERSION_KEY = b"lafite_bench.schema_version"
_PRODUCER_KEY = b"lafite_bench.producer"
_UTC = pa.timestamp("us", tz="UTC")

_COLUMNS: dict[str, pa.DataType] = {
    "cell_id": pa.string(),
    "mode": pa.string(),  # "multi-class" or "separate"
    "preset": pa.string(),
    "profile": pa.string(),  # the conventions of the metrics, see results.profiles
    "benchmark": pa.string(),
    "location": pa.string(),  # the folder that its images lay in; null: none was named
    "published_categories": pa.int64(),  # of the whole data set; null: not known
    "category": pa.string(),
    "method": pa.string(),
    "variant": pa.string(),
    "seed": pa.int64(),
    "split": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "reason": pa.string(),  # why value is null
    "status": pa.string(),
    "error": pa.string(),
    "config_json": pa.string(),
    "knobs_json": pa.string(),
    "config_hash": pa.string(),
    "data_fingerprint": pa.string(),  # of what was learned from, then of what was scored
    "images_fingerprint": pa.string(),  # the same with what was held out
    "weights_sha256": pa.string(),
    "world_size": pa.int64(),
    "restarts": pa.int64(),  # how often the fit went on from a checkpoint
    "train_images": pa.int64(),
    "test_images": pa.int64(),
    "fit_seconds": pa.float64(),
    "score_seconds": pa.float64(),  # wall time, all workers together; no start-up, no metrics
    "images_per_second": pa.float64(),  # test images / seconds of their features and of scoring
    "train_images_per_second": pa.float64(),  # of the gradient loop, or of the fit; null: unknown
    "parameters": pa.int64(),  # trainable
    "peak_memory_bytes": pa.int64(),
    "device": pa.string(),
    "precision": pa.string(),  # the number formats that were computed in, whatever was wished
    "python_version": pa.string(),
    "torch_version": pa.string(),
    "ray_version": pa.string(),
    "timm_version": pa.string(),
    "code_version": pa.string(),
    "started_at": _UTC,
    "finished_at": _UTC,
}
# No report can show a row without these; the others may be unknown for a failed cell.
_NAMES = ("mode", "preset", "profile", "benchmark", "method", "variant", "seed", "split")
_REQUIRED = frozenset(("cell_id", *_NAMES, "status", "finished_at"))
_SCORE_COLUMNS: dict[str, pa.DataType] = {
    "cell_id": pa.string(),
    "key": pa.string(),
    "category": pa.string(),
    "defect": pa.string(),
    "label": pa.bool_(),  # true = anomalous
    "score": pa.float64(),
}


def schema_of(columns: Mapping[str, pa.DataType], optional: Collection[str] = ()) -> pa.Schema:
    """A schema that stamps the version and the program into the files written with it."""
    fields = [pa.field(name, kind, name in optional) for name, kind in columns.items()]
    stamps = {_VERSION_KEY: str(SCHEMA_VERSION).encode(), _PRODUCER_KEY: PRODUCER.encode()}
    return pa.schema(fields, metadata=stamps)


SCHEMA = schema_of(_COLUMNS, _COLUMNS.keys() - _REQUIRED)
SCORES_SCHEMA = schema_of(_SCORE_COLUMNS)


def part_path(out: Path, cell_id: str) -> Path:
    """The file of a finished cell's rows; it exists exactly when the cell is done."""
    return out / "parts" / f"{cell_id}.parquet"


def failure_path(out: Path, cell_id: str, attempt: int) -> Path:
    """The file of the row of a failed attempt."""
    return out / "failures" / f"{cell_id}-{attempt}.parquet"


def scores_path(out: Path, cell_id: str) -> Path:
    """The file of a finished cell's score for every test image."""
    return out / "scores" / f"{cell_id}.parquet"


def write_part(path: Path, rows: Sequence[Mapping[str, Any]], *, replace: bool = False) -> None:
    """Write rows of SCHEMA at `path`, as `write_rows` does."""
    write_rows(path, rows, SCHEMA, replace=replace)


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, *, replace: bool = False
) -> None:
    """Publish rows of a schema, such as SCORES_SCHEMA, whole or not at all.

    Of several writers of one path the first wins and the others change nothing, unless `replace`
    is true. Raises ValueError for rows that do not fit the schema and OSError, naming the path and
    the bytes needed, where the file cannot be written.
    """
    for number, row in enumerate(rows):
        if wrong := sorted(row.keys() ^ set(schema.names)):
            raise ValueError(f"{path.name}, row {number}: missing or unknown: {', '.join(wrong)}")
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{path.name}, row {number}: {name} is {value}; write null and a reason"
                )
    buffer = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    except pa.ArrowException as error:
        raise ValueError(f"{path.name}: {error}") from error
    write_whole(path, memoryview(buffer.getvalue()), replace=replace)


def read(folder: Path, only: Collection[str] | None = None) -> pl.DataFrame:
    """The rows of all finished cells under an output folder, and each other's newest failure.

    With the names of `told_apart`, so that rows of one name are of one kind. With `only` no other
    cells than those with these ids are looked at.
    Raises ResultsError where the folder holds no results, and for a part that cannot be read or is
    of another schema, naming it.
    """
    done, failed = (read_kind(folder / kind, SCHEMA, only) for kind in ("parts", "failures"))
    if done.is_empty() and failed.is_empty():
        raise ResultsError(
            f"{folder}: no results here (parts/*.parquet); name a run's --out folder"
        )
    newest = failed.filter(pl.col("finished_at") == pl.col("finished_at").max().over("cell_id"))
    return told_apart(pl.concat([done, newest.join(done, on="cell_id", how="anti")]))


def torn(path: Path, *, pages: bool = True) -> str:
    """Why a file is no whole Parquet file; empty if it is or can't be opened.

    By its footer, which is written last, and by the checksums of its `pages`.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if pages:
            file.read()
    except pa.ArrowException as error:
        return str(error).splitlines()[0]
    except OSError:
        return ""  # not damaged: its reader will say what keeps it closed
    return ""


def read_scores(folder: Path) -> pl.DataFrame:
    """All rows of SCORES_SCHEMA under an output folder; raises ResultsError as `read` does."""
    return read_kind(folder / "scores", SCORES_SCHEMA)


def read_kind(folder: Path, schema: pa.Schema, only: Collection[str] | None = None) -> pl.DataFrame:
    """All rows of a schema in a folder; `only` and ResultsError as for `read`."""
    parts = [
        read_part(path, schema)
        for path in sorted(folder.glob("[!.]*.parquet"))
        if only is None or path.stem.partition("-")[0] in only
    ]
    return pl.concat([pl.DataFrame(schema.empty_table()), *parts])


def read_part(path: Path, schema: pa.Schema = SCHEMA, advice: str = AGAIN) -> pl.DataFrame:
    """The rows of one file; raises ResultsError as `read` does, with `advice` for a damaged one."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except PermissionError as error:
        raise ResultsError(
            f"{path}: cannot be read ({error.strerror}); allow reading it"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"{path}: cannot be read ({error}); {advice}") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"").decode()
    if not version.isdecimal():
        raise ResultsError(f"{path}: not written by {PRODUCER}; move it out of this folder")
    if version != str(SCHEMA_VERSION) or set(table.schema.names) != set(schema.names):
        raise ResultsError(
            f"{path}: of schema version {version} with {len(table.schema.names)} columns, not of "
            f"{SCHEMA_VERSION} with {len(schema.names)}; read it with the {PRODUCER} that wrote "
            "it, or run into another folder (--out)"
        )
    return pl.DataFrame(table.select(schema.names).cast(schema))
