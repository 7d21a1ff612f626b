"""A trained model carried away: a folder that `predict` takes anywhere, a torch program, or ONNX.

A program takes (1, 3, S, S) float32 pixels in [0, 1], as `harness.use.predict.Model.view` cuts
them, and gives the image score (1,) and the map (1, S, S). It has the backbone in it. LafitE's
denoising steps are unrolled.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.plan.registry import UsageError, first_line
from harness.use.predict import BACKBONE, Model
from methods.base import Exports
from methods.parts.backbone import Extractor
from results.files import whole_folder

LARGEST_ONNX = 2 * 1000**3
"""Bytes of one file, that protocol buffers hold."""


class Program(nn.Module):
    """Pixels to scores, in one module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        method, self.knobs = model.method, model.cell.knobs
        self.method = method.program() if isinstance(method, Exports) else method
        # In torch: what runs in ONNX Runtime can't be exported again.
        self.extractor = None
        if model.extractor is not None and model.cell.weights is not None:
            self.extractor = Extractor(model.extractor.view, model.cell.weights).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) in [0, 1] to image score and map."""
        values = pixels if self.extractor is None else self.extractor(pixels).half().float()
        scores = self.method.score(values, self.knobs)
        return scores.images, scores.maps


def as_folder(model: Model, out: Path) -> Path:
    """The model, its settings, calibration and backbone in one folder."""
    with whole_folder(out) as scratch:
        shutil.copy(model.folder / "model.safetensors", scratch)
        shutil.copy(model.folder / "fit.json", scratch)
        (scratch / "cells").mkdir()
        name = f"{model.record['cell']}.json"
        shutil.copy(model.folder / "cells" / name, scratch / "cells" / name)
        if (weights := model.cell.weights) is not None:
            shutil.copy(weights, scratch / f"{BACKBONE}{weights.suffix}")
    return out


def as_program(model: Model, out: Path, fmt: str) -> Path:
    """A `torch.export` program (.pt2), or ONNX; UsageError for a method that can't be expressed.

    Beside it a JSON file says what it is and where alarms begin.
    """
    size = sum(value.nbytes for value in model.method.state_dict().values())
    if fmt == "onnx" and size > LARGEST_ONNX:
        raise UsageError(
            f"--out {out}: {model.cell.method} holds {size:,} bytes, ONNX at most "
            f"{LARGEST_ONNX:,}; use --out {out.with_suffix('.pt2')}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    view = model.method.inputs(model.method.config)
    pixels = torch.rand(1, 3, view.side, view.side, generator=torch.Generator().manual_seed(0))
    program = Program(model).cpu().eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, about their own future
            _write(torch.export.export(program, (pixels,), strict=False), out, fmt)
    except RuntimeError as error:  # of torch.export and torch.onnx: what they have no program for
        out.unlink(missing_ok=True)
        raise UsageError(
            f"--out {out}: {model.cell.method} can't be expressed ({first_line(error)}); "
            f"use --out {out.with_suffix('')} --format folder"
        ) from None
    facts = {name: value for name, value in model.record.items() if name != "losses"}
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1))
    return out


def _write(program: torch.export.ExportedProgram, out: Path, fmt: str) -> None:
    if fmt == "torch":
        torch.export.save(program, out)
        return
    torch.onnx.export(
        program,
        f=str(out),
        input_names=["pixels"],
        output_names=["score", "map"],
        external_data=False,
        verbose=False,
    )
