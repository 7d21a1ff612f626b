"""`lafite-bench predict`: a trained model on new images."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.plan.options import keeping, selecting
from harness.plan.registry import UsageError, did_you_mean, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.use.predict import Model
    from harness.use.sheet import Sheet

FORMATS = (".jsonl", ".csv", ".parquet")


def command(
    model: Annotated[
        Path, typer.Argument(help="OUT of a run, a folder of OUT/models, or an exported one.")
    ],
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, globs, or - for a list from stdin.")
    ],
    *,
    method: Annotated[
        str | None, selecting("--method", "-m", help="Of the models in OUT the one of this method.")
    ] = None,
    alpha: Annotated[
        float | None,
        selecting(help="Verdicts: alarms on at most this share of normal images, e.g. 0.01."),
    ] = None,
    category: Annotated[
        str | None, selecting(help="What the images are of; default: one threshold for all.")
    ] = None,
    cell: Annotated[
        str | None, selecting(help="With the knobs of this cell; default: the newest.")
    ] = None,
    out: Annotated[
        Path | None, keeping(help="A new .jsonl, .csv or .parquet file; default: stdout.")
    ] = None,
    maps: Annotated[Path | None, keeping(help="Folder of heat maps over the images.")] = None,
    html: Annotated[
        Path | None, keeping(help="A page of the images and their maps, highest scores first.")
    ] = None,
) -> bool:
    """Score images with a trained model: score, p-value, verdict, one line each.

    Example: lafite-bench predict results/runs -m patchcore new-images/ --alpha 0.05
    """
    from rich.console import Console

    from harness.screen.progress import counter, working
    from harness.use.predict import load
    from harness.use.sheet import Sheet
    from results.reports.numbers import counted

    if out is not None and out.suffix not in FORMATS:
        raise UsageError(f"--out {out}: end it with {', '.join(FORMATS)}, as what is written")
    paths = found(images)
    drawn = {path: maps / name for path, name in _names(paths).items()} if maps else {}
    for option, asked, files in (
        ("--out", out, [out]),
        ("--html", html, [html]),
        ("--maps", maps, [*drawn.values()]),
    ):
        if there := next((file for file in files if file and file.exists()), None):
            raise UsageError(f"{option} {asked}: {there} is there already; name a new one")
    with working("loading the model"):
        trained = load(_model(model, method, cell), cell)
    above = _threshold(trained, alpha, category)
    console, rows, started = Console(stderr=True), [], time.perf_counter()
    sheet = Sheet(trained, category) if html else None
    with counter("images", len(paths), console) as one_more:
        for row in _rows(trained, paths, category, above, drawn, sheet):
            one_more()
            if isinstance(row, str):
                console.print(f"skipped {row}", markup=False, soft_wrap=True)
                continue
            rows.append(row)
            if out is None:
                typer.echo(json.dumps(row, ensure_ascii=False))
    if out is not None:
        _put("--out", out, _table(rows, out.suffix))
    if html is not None and sheet is not None:
        _put("--html", html, sheet.page(rows).encode())
    seconds = time.perf_counter() - started
    console.print(
        f"{counted(len(rows), 'image')} in {seconds:.1f} s, {len(rows) / seconds:.1f} a second",
        highlight=False,
    )
    return len(rows) == len(paths)


def _model(folder: Path, method: str | None, cell: str | None) -> Path:
    """The folder of a model in a folder of results, the first seed's; any other folder as it is.

    UsageError, with a line for each model, where it is not clear which of them is meant.
    """
    from results.files import record_in

    models = folder / "models" if (folder / "models").is_dir() else folder
    rows: dict[tuple[str, str], dict[int, Path]] = {}
    for use in sorted(models.glob(f"[!.]*/cells/{cell or '*'}.json")):
        with suppress(OSError, ValueError):  # `load` says what is wrong with it
            record = record_in(use.read_bytes(), "method", "variant", "seed", "data")
            data, categories = record["data"]["name"], record["data"]["categories"]
            data = f"{data}/{categories[0]}" if len(categories) == 1 else data
            name = f"{record['method']} {record['variant']}".strip()
            rows.setdefault((name, data), {})[record["seed"]] = use.parents[1]
    known = [name for name, _ in rows]
    named = [name for name in known if name == method] or [
        name for name in known if name.startswith(method or "")
    ]
    chosen = {row: seeds for row, seeds in rows.items() if row[0] in named}
    if rows and not chosen:
        raise UsageError(f"{folder}: -m {method}: {did_you_mean(str(method), known)}")
    if len(chosen) > 1:
        lines = [f"  {' on '.join(row)}: {min(seeds.items())[1]}" for row, seeds in chosen.items()]
        raise UsageError(
            "\n".join([f"{folder}: which model? -m METHOD, or one of these in its place:", *lines])
        )
    return next((min(seeds.items())[1] for seeds in chosen.values()), folder)


def _rows(
    model: Model,
    paths: Sequence[Path],
    category: str | None,
    above: float | None,
    drawn: Mapping[Path, Path],
    sheet: Sheet | None,
) -> Iterator[dict[str, Any] | str]:
    """A row for each image, or why it can't be read.

    The next few are read while these are scored.
    """
    import numpy as np

    from benchmarks.base import DataError
    from benchmarks.parts.content import map_ahead, map_threads
    from harness.use.predict import BATCH

    def view(path: Path) -> NDArray[np.uint8] | str:
        try:
            return model.view(path, category)
        except (DataError, ValueError) as error:
            return first_line(error)

    pieces = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    ahead = map_ahead(lambda piece: [*map_threads(view, piece)], pieces)
    for piece, views in zip(pieces, ahead, strict=True):
        yield from (why for why in views if isinstance(why, str))
        whole = {p: v for p, v in zip(piece, views, strict=True) if not isinstance(v, str)}
        if not whole:
            continue
        scores = model.score(np.stack([*whole.values()]))
        for path, score, map_SS in zip(whole, scores.images, scores.maps, strict=True):
            row: dict[str, Any] = {"image": str(path), "score": float(score)}
            if model.held:
                row["p_value"] = float(model.p_values(score[None], category)[0])
            if above is not None:
                row["verdict"] = "alarm" if float(score) > above else "normal"
            if drawn:
                row["map"] = str(_draw(model, whole[path], map_SS, drawn[path]))
            if sheet is not None:
                sheet.add(path, float(score), map_SS)
            yield row


def found(wanted: Sequence[str]) -> list[Path]:
    """The files that are meant, each once; UsageError where a word means none."""
    from benchmarks.parts.inventory import images_below

    words = [
        w for word in wanted for w in (sys.stdin.read().splitlines() if word == "-" else [word])
    ]
    paths: dict[Path, None] = {}
    for word in filter(None, words):
        path = Path(word)
        if path.is_dir():
            inside = images_below(path)
        elif path.exists():
            inside = [path]
        else:
            inside = sorted(map(Path, glob(word, recursive=True)))  # noqa: PTH207
        inside = [file for file in inside if file.is_file()]
        if not inside:
            raise UsageError(f"{word}: no image there; name a file, a folder of images, or a glob")
        paths |= dict.fromkeys(inside)
    return list(paths)


def _threshold(model: Model, alpha: float | None, category: str | None) -> float | None:
    if category is not None and category not in model.categories:
        hint = did_you_mean(category, model.categories)
        raise UsageError(f"--category {category}: not learned; {hint}")
    if alpha is None:
        return None
    try:
        return model.threshold(alpha, category)
    except ValueError as error:
        raise UsageError(f"--alpha {alpha:g}: {error}") from None


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for each image's map: its own, with its folders where two would be the same, and
    with its ending where those do not help."""
    names: dict[Path, str] = {}
    for ending, depth in itertools.product((False, True), (1, 2, 4, 99)):
        for path in paths:
            *folders, _ = path.resolve().parts[-depth:]
            words = [*folders, path.name if ending else path.stem]
            names[path] = f"{'_'.join(words).strip('/_')}.png"
        if len(set(names.values())) == len(paths):
            break
    return names


def _draw(model: Model, view_3SS: Any, map_SS: Any, file: Path) -> Path:
    """The map over what the model sees; strongest where no held-out image reaches."""
    from PIL import Image

    from harness.work.pictures import overlay

    peaks = [held[:, 1].max() for held in model.held.values()]
    top = max(peaks) if peaks else float(map_SS.max())
    pixels = view_3SS.transpose(1, 2, 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(overlay(pixels, map_SS, float(map_SS.min()), top)).save(file)
    return file


def _table(rows: Sequence[dict[str, Any]], ending: str) -> bytes:
    import io

    import polars as pl

    from results.reports.layout import csv_text

    frame, buffer = pl.DataFrame(rows, infer_schema_length=None), io.BytesIO()
    if ending == ".csv":
        return csv_text(frame).encode()
    (frame.write_parquet if ending == ".parquet" else frame.write_ndjson)(buffer)
    return buffer.getvalue()


def _put(option: str, file: Path, content: bytes) -> None:
    from results.files import write_whole

    try:
        write_whole(file, content)
    except OSError as error:
        raise UsageError(f"{option} {file}: {error.strerror}; name another file") from None
    typer.echo(str(file))
