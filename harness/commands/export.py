"""`lafite-bench export`: a trained model carried away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.plan.options import completing, keeping, selecting
from harness.plan.registry import UsageError, did_you_mean

FORMATS = {"folder": "", "torch": ".pt2", "onnx": ".onnx"}
"""The ending of each format's name."""


def command(
    model: Annotated[Path, typer.Argument(help="A folder of OUT/models.")],
    *,
    out: Annotated[Path, keeping(help="A new folder, or a new .pt2 or .onnx file.")],
    format_: Annotated[
        str | None,
        keeping(
            "--format",
            metavar="|".join(FORMATS),
            help="For predict, for torch, or for any runtime of ONNX; default: as --out ends.",
            autocompletion=completing([*FORMATS]),
        ),
    ] = None,
    cell: Annotated[
        str | None, selecting(help="With the knobs of this cell; default: the newest.")
    ] = None,
) -> None:
    """Carry a trained model away: settings, weights, backbone and calibration.

    Example: lafite-bench export results/runs/models/FIT --out model.onnx
    """
    import importlib.util

    from harness.screen.progress import working
    from harness.use.export import as_folder, as_program
    from harness.use.predict import load

    format_ = _format(out, format_)
    for path in (out, *([out.with_suffix(".json")] if format_ != "folder" else ())):
        if path.exists():
            what = "" if path == out else f"{path} "
            raise UsageError(f"--out {out}: {what}is there already; name a new one")
    if format_ == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise UsageError("--format onnx: pip install 'lafite-bench[onnx]' first")
    with working(f"writing {out}"):
        trained = load(model, cell, device="cpu")
        path = as_folder(trained, out) if format_ == "folder" else as_program(trained, out, format_)
    typer.echo(str(path))


def _format(out: Path, named: str | None) -> str:
    """The format that is named, or that the ending of `out` says; UsageError if they contradict."""
    by_ending = {ending: name for name, ending in FORMATS.items()}
    if named is not None and named not in FORMATS:
        raise UsageError(f"--format {named}: {did_you_mean(named, FORMATS)}")
    said = by_ending.get(out.suffix, named if named == "folder" else None)
    if said is None:
        raise UsageError(f"--out {out}: end it with .pt2 or .onnx, or give --format folder")
    if named not in (None, said):
        raise UsageError(f"--out {out}: is the name of --format {said}, not of {named}; change one")
    return said
