"""A trained model carried away: a folder that `predict` takes anywhere, a torch program, or ONNX.

A program takes (1, 3, S, S) float32 pixels in [0, 1], as `harness.predict.Model.view` cuts them,
and gives the image score (1,) and the map (1, S, S). It has the backbone in it. LafitE's denoising
steps are unrolled, with the noise of one image, as a program has no names of images to draw from.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods.lafite as lafite
import methods.padim as padim
from harness.predict import BACKBONE, Model, backbone_of
from harness.registry import UsageError, first_line
from methods.parts.backbone import Extractor, Features
from methods.parts.seeds import image_noise
from results.files import whole_folder

FORMATS = ("folder", "torch", "onnx")
LARGEST_ONNX = 2 * 1000**3
"""Bytes of one file, that protocol buffers hold."""
NAME = ""
"""Of the image whose noise a program has."""


class Program(nn.Module):
    """Pixels to scores, in one module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.method, self.knobs, weights = model.method, model.knobs, backbone_of(model)
        view = model.method.inputs(model.method.config)
        # In torch: what runs in ONNX Runtime can't be exported again.
        self.extractor = None
        if isinstance(view, Features) and weights is not None:
            self.extractor = Extractor(view, weights).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) in [0, 1] to image score and map."""
        values = pixels if self.extractor is None else self.extractor(pixels).half().float()
        scores = self.method.score(values, [NAME] * len(pixels), self.knobs)
        return scores.images, scores.maps


def as_folder(model: Model, out: Path) -> Path:
    """The model, its settings, calibration and backbone in one folder."""
    with whole_folder(out) as scratch:
        shutil.copy(model.folder / "model.safetensors", scratch)
        shutil.copy(model.folder / "fit.json", scratch)
        (scratch / "cells").mkdir()
        name = f"{model.record['cell']}.json"
        shutil.copy(model.folder / "cells" / name, scratch / "cells" / name)
        if (weights := backbone_of(model)) is not None:
            shutil.copy(weights, scratch / f"{BACKBONE}{weights.suffix}")
    return out


def as_program(model: Model, out: Path, fmt: str) -> Path:
    """A `torch.export` program (.pt2), or ONNX; UsageError for a method that can't be expressed.

    Beside it a JSON file says what it is and where alarms begin.
    """
    size = sum(value.nbytes for value in model.method.state_dict().values())
    if fmt == "onnx" and size > LARGEST_ONNX:
        raise UsageError(
            f"--format onnx: {model.name} holds {size:,} bytes, ONNX at most {LARGEST_ONNX:,}; use "
            "--format torch"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    view = model.method.inputs(model.method.config)
    pixels = torch.rand(1, 3, view.side, view.side, generator=torch.Generator().manual_seed(0))
    program = Program(model).cpu().eval()
    try:
        with torch.no_grad(), _constants(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, about their own future
            _write(torch.export.export(program, (pixels,), strict=False), out, fmt)
    except RuntimeError as error:  # of torch.export and torch.onnx: what they have no program for
        out.unlink(missing_ok=True)
        raise UsageError(
            f"--format {fmt}: {model.name} can't be expressed ({first_line(error)}); "
            "use --format folder"
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


class _Levels:
    """A schedule whose levels are numbers when they are asked for one by one."""

    def __init__(self, levels_N: Tensor) -> None:
        self.levels_N = levels_N
        self.numbers = levels_N.tolist()

    def __getitem__(self, step: Any) -> Any:
        return self.levels_N[step] if isinstance(step, Tensor) else np.float64(self.numbers[step])

    def to(self, *where: Any) -> _Levels:
        """Here already."""
        return self


@contextmanager
def _constants(model: Model) -> Iterator[None]:
    """What a program can't ask a tensor for becomes a number, and noise a constant."""
    with ExitStack() as changes:
        for module in model.method.modules():
            for name, value in list(module._buffers.items()):
                if value is not None and value.ndim == 0 and not value.is_floating_point():
                    changes.callback(module.register_buffer, name, value)
                    del module._buffers[name]
                    object.__setattr__(module, name, np.int64(value.item()))
                    changes.callback(object.__delattr__, module, name)
        if isinstance(model.method, lafite.LafitE):
            levels = _Levels(model.method.alpha_bar_N)
            changes.enter_context(patch.object(model.method, "alpha_bar_N", levels))
            changes.enter_context(patch.object(lafite, "image_noise", _noise_of_one(model)))
            changes.enter_context(patch.object(F, "scaled_dot_product_attention", _attention))
        if isinstance(model.method, padim.PaDiM):
            # Triangular solves are no operator of ONNX; products with the inverse are.
            factor_PDD = model.method.factor_PDD
            changes.callback(model.method.register_buffer, "factor_PDD", factor_PDD)
            model.method.register_buffer("factor_PDD", torch.linalg.inv(factor_PDD))
            changes.enter_context(patch.object(torch.linalg, "solve_triangular", _product))
        yield


def _product(inverse_PDD: Tensor, rows_PDB: Tensor, *, upper: bool) -> Tensor:
    return inverse_PDD @ rows_PDB


def _attention(query_BNC: Tensor, key_BNC: Tensor, value_BNC: Tensor) -> Tensor:
    """With an axis of one head, which ONNX wants."""
    query, key, value = (tensor[:, None] for tensor in (query_BNC, key_BNC, value_BNC))
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    return (weights @ value)[:, 0]


def _noise_of_one(model: Model) -> Callable[..., Tensor]:
    """`image_noise` for the image NAME, drawn beforehand."""
    made: dict[int, Tensor] = {}

    def draw(seed: int, keys: Sequence[str], shape: Sequence[int]) -> Tensor:
        made[seed] = image_noise(seed, keys, shape)
        return made[seed]

    view = model.method.inputs(model.method.config)
    with patch.object(lafite, "image_noise", draw), torch.no_grad():
        pixels = torch.zeros(1, 3, view.side, view.side)
        Program(model)(pixels)
    return lambda seed, keys, shape: made[seed]
