"""`lafite-bench verify`: whether a folder of results is what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.plan.options import DEFAULT_OUT, Results
from harness.plan.registry import UsageError, first_line

if TYPE_CHECKING:
    import polars as pl

CLOSE = 1e-9
"""The largest difference between a stored metric and the same from stored scores."""


def command(path: Results = DEFAULT_OUT) -> bool:
    """Look at parts, scores and models: whole, unchanged, and do the scores give the metrics?

    Example: lafite-bench verify results/runs
    """
    from harness.screen.progress import working

    if not path.is_dir():
        raise UsageError(f"{path}: no such folder of results; name the --out of a run")
    with working(f"reading and hashing what is in {path}"):
        noted = _noted(path)
        parts = sorted((path / "parts").glob("[!.]*.parquet"))
        faults = [fault for part in parts for fault in _faults(path, part, noted)]
        for cell in sorted(noted.keys() - {part.stem for part in parts}):
            faults.append(f"{path / 'parts' / cell}.parquet: is missing")
        models, damaged = _models(path)
    for fault in [*faults, *damaged]:
        typer.echo(fault)
    typer.echo(f"{len(parts)} cells and {models} models, {len(faults + damaged)} faults")
    if unknown := len({part.stem for part in parts} - noted.keys()):
        typer.echo(f"{unknown} cells have no hash in published.jsonl: edits would not show")
    typer.echo("not verified: whether images and weights were those that the rows name")
    return not faults and not damaged


def _noted(out: Path) -> dict[str, dict[str, set[str]]]:
    """Hashes of files that were written, by cell and kind of file.

    Of two commands that make one cell both note it, and the files of one of them stay.
    """
    from harness.store.journal import PUBLISHED, entries

    noted: dict[str, dict[str, set[str]]] = {}
    for entry in entries(out / PUBLISHED):
        for kind, sha256 in entry["files"].items():
            noted.setdefault(entry["cell"], {}).setdefault(kind, set()).add(sha256)
    return noted


def _faults(out: Path, part: Path, noted: Mapping[str, Mapping[str, set[str]]]) -> Iterator[str]:
    """Faults of a cell's files."""
    from results.table import read_part, torn

    if why := torn(part):
        yield f"{part}: is not whole ({why})"
        return
    try:
        rows = read_part(part)
    except ValueError as error:
        yield str(error)
        return
    if set(rows["cell_id"]) != {part.stem}:
        yield f"{part}: holds rows of other cells"
    for kind, hashes in noted.get(part.stem, {}).items():
        file = out / kind / part.name
        if not file.exists():
            yield f"{file}: is missing"
        elif _sha256(file) not in hashes:
            yield f"{file}: is not what was written"
    if (rows["test_images"] > 0).any():  # else it is of normal images alone: there are no scores
        yield from _wrong_metrics(rows, part, out / "scores" / part.name)


def _wrong_metrics(rows: pl.DataFrame, part: Path, path: Path) -> Iterator[str]:
    """Image metrics that the scores of the same cell do not give."""
    import polars as pl

    from results.identity import POOLED
    from results.metrics import IMAGE_METRICS, image_metrics

    try:
        scores = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        yield f"{path}: can't be read ({first_line(error)})"
        return
    rows = rows.filter(pl.col("metric").is_in(IMAGE_METRICS))
    for (category,), own in rows.group_by("category", maintain_order=True):
        of = scores if category == POOLED else scores.filter(category=category)
        given = image_metrics(of["label"].to_numpy(), of["score"].to_numpy())
        for name, value in own.select("metric", "value").iter_rows():
            now = given[name].value
            if value != now and (None in (value, now) or abs(value - now) > CLOSE):
                yield f"{part}: {name} of {category} is {value}, its scores give {now}"


def _models(out: Path) -> tuple[int, list[str]]:
    """How many trained models there are, and a line for each that is not what was written."""
    from harness.store.folder import folder_at
    from results.files import record_in

    folder_at(out).local("models")
    records = sorted((out / "models").glob("[!.]*/fit.json"))
    faults = []
    for record in (record for record in records if ".corrupt-" not in record.parent.name):
        try:
            sha256 = record_in(record.read_bytes(), "sha256")["sha256"]
            if _sha256(record.with_name("model.safetensors")) != sha256:
                faults.append(f"{record.parent}: the model is not what was written")
        except (OSError, ValueError) as error:
            faults.append(f"{record.parent}: can't be read ({error})")
    return len(records), faults


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
