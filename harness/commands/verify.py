"""`lafite-bench verify`: whether a folder of results is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from harness.plan.options import DEFAULT_OUT, Results
from harness.plan.registry import UsageError, first_line

CLOSE = 1e-9
"""The largest difference between a stored metric and the same from stored scores."""


def command(path: Results = DEFAULT_OUT) -> bool:
    """Look at parts, scores and models: whole, unchanged, and do the scores give the metrics?

    Example: lafite-bench verify results/runs
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder of results; name the --out of a run")
    from harness.screen.progress import shown

    with shown(f"reading and hashing what is in {path}"):
        faults = list(_faults(path))
    for fault in faults:
        typer.echo(fault)
    parts = len(list((path / "parts").glob("[!.]*.parquet")))
    models = len(list((path / "models").glob("[!.]*/fit.json")))
    typer.echo(f"{parts} cells and {models} models, {len(faults)} faults")
    if unknown := _without_hash(path):
        typer.echo(f"{unknown} cells have no hash in published.jsonl: edits would not show")
    typer.echo("not verified: whether images and weights were those that the rows name")
    return not faults


def _faults(out: Path) -> Iterator[str]:
    from harness.store.folder import folder_at
    from harness.store.journal import entries
    from harness.store.store import PUBLISHED
    from methods.parts.backbone import file_sha256
    from results.files import record_in
    from results.table import read_part, torn

    # Of two commands that make one cell both note it, and the files of one of them stay.
    noted: dict[str, dict[str, set[str]]] = {}
    for entry in entries(out / PUBLISHED):
        for kind, sha256 in entry["files"].items():
            noted.setdefault(entry["cell"], {}).setdefault(kind, set()).add(sha256)
    for part in sorted((out / "parts").glob("[!.]*.parquet")):
        if why := torn(part):
            yield f"{part}: is not whole ({why})"
            continue
        try:
            rows = read_part(part)
        except ValueError as error:
            yield str(error)
            continue
        if set(rows["cell_id"]) != {part.stem}:
            yield f"{part}: holds rows of other cells"
        for kind, hashes in noted.get(part.stem, {}).items():
            file = out / kind / part.name
            if not file.exists():
                yield f"{file}: is missing"
            elif file_sha256(file) not in hashes:
                yield f"{file}: is not what was written"
        yield from _wrong_metrics(out, part)
    for cell in sorted(noted.keys() - {part.stem for part in (out / "parts").glob("*.parquet")}):
        yield f"{out / 'parts' / cell}.parquet: is missing"
    folder_at(out).local("models")
    for record in sorted((out / "models").glob("[!.]*/fit.json")):
        if ".corrupt-" in record.parent.name:
            continue
        try:
            sha256 = record_in(record.read_bytes(), "sha256")["sha256"]
            if file_sha256(record.with_name("model.safetensors")) != sha256:
                yield f"{record.parent}: the model is not what was written"
        except (OSError, ValueError) as error:
            yield f"{record.parent}: can't be read ({error})"


def _wrong_metrics(out: Path, part: Path) -> Iterator[str]:
    """Image metrics that the scores of the same cell do not give."""
    import polars as pl

    from results.identity import POOLED
    from results.metrics import IMAGE_METRICS, image_metrics
    from results.table import read_part

    path = out / "scores" / part.name
    if (read_part(part)["test_images"] == 0).all():
        return  # of normal images alone: there are no scores
    try:
        scores = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        yield f"{path}: can't be read ({first_line(error)})"
        return
    rows = read_part(part).filter(pl.col("metric").is_in(IMAGE_METRICS))
    for (category,), own in rows.group_by("category", maintain_order=True):
        of = scores if category == POOLED else scores.filter(category=category)
        given = image_metrics(of["label"].to_numpy(), of["score"].to_numpy())
        for name, value in own.select("metric", "value").iter_rows():
            if (value is None) != (given[name].value is None) or (
                value is not None and abs(value - (given[name].value or 0)) > CLOSE
            ):
                now = given[name].value
                yield f"{part}: {name} of {category} is {value}, its scores give {now}"


def _without_hash(out: Path) -> int:
    """How many cells ended between their part and its line in the log."""
    from harness.store.journal import entries
    from harness.store.store import PUBLISHED

    noted = {entry["cell"] for entry in entries(out / PUBLISHED)}
    return len({path.stem for path in (out / "parts").glob("[!.]*.parquet")} - noted)
