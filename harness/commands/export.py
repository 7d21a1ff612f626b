"""`lafite-bench export`: a trained model carried away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.plan.options import completing, keeping, selecting
from harness.plan.registry import UsageError, did_you_mean

FORMATS = ("folder", "torch", "onnx")


def command(
    model: Annotated[Path, typer.Argument(help="A folder of OUT/models.")],
    *,
    out: Annotated[Path, keeping(help="A new folder, or a .pt2 or .onnx file.")],
    format_: Annotated[
        str,
        keeping(
            "--format",
            metavar="|".join(FORMATS),
            help="For predict, for torch, or for any runtime of ONNX.",
            autocompletion=completing(FORMATS),
        ),
    ] = "folder",
    cell: Annotated[
        str | None, selecting(help="With the knobs of this cell; default: the newest.")
    ] = None,
) -> None:
    """Carry a trained model away: settings, weights, backbone and calibration.

    Example: lafite-bench export results/runs/models/FIT --format onnx --out model.onnx
    """
    import importlib.util

    from harness.screen.progress import working
    from harness.use.export import as_folder, as_program
    from harness.use.predict import load

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: {did_you_mean(format_, FORMATS)}")
    if out.exists():
        raise UsageError(f"--out {out}: is there already; name a new one")
    if format_ == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise UsageError("--format onnx: pip install 'lafite-bench[onnx]' first")
    with working(f"writing {out}"):
        trained = load(model, cell, device="cpu")
        path = as_folder(trained, out) if format_ == "folder" else as_program(trained, out, format_)
    typer.echo(str(path))
