"""Frozen convolutional backbones in ONNX Runtime: on a CPU several times as fast as in PyTorch.

A program is an ONNX file with all layers of one backbone, its weights in it, for views of one size.

Shape legend: B images, C channels, h and w a layer's own cells, S view side in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PACKAGES = ("onnx", "onnxruntime")
"""Packages that make and run programs, of the extra `cpu`."""


class Unusable(RuntimeError):
    """ONNX Runtime can't serve a backbone here; the message says why."""


class Program:
    """A backbone's program, ready to run on as many threads as torch has.

    Unusable where ONNX Runtime can't load, or can't load the file.
    """

    def __init__(self, file: Path, layers: Sequence[int]) -> None:
        self.names = [_name(layer) for layer in layers]
        try:
            import onnx
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3  # errors: they are raised as well
            # Cut off behind the deepest layer that is wanted.
            whole = onnx.utils.Extractor(onnx.load(file))
            wanted = whole.extract_model(["images"], self.names).SerializeToString()
            providers = ["CPUExecutionProvider"]
            self.session: Any = onnxruntime.InferenceSession(wanted, options, providers)
        except Exception as error:  # whatever a broken library or file raises, torch takes over
            raise Unusable(_in_one_line(error)) from None

    def __call__(self, images_B3SS: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, S, S) to layers (B, C, h, w), all float32."""
        pixels = np.ascontiguousarray(images_B3SS.numpy())
        return [
            torch.from_numpy(layer) for layer in self.session.run(self.names, {"images": pixels})
        ]


def why_not() -> str:
    """The reason why backbones run in PyTorch on a CPU here; empty where ONNX Runtime serves."""
    try:
        _check_packages()
        import onnxruntime  # noqa: F401
    except Exception as error:  # a broken library raises what it likes
        return f"PyTorch, which is slower than ONNX Runtime: {_in_one_line(error)}"
    return ""


def _check_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise Unusable(f"{missing[0]} is not installed; pip install 'lafite-bench[cpu]'")


def export(pyramid: nn.Module, side: int, layers: int, file: Path) -> None:
    """Write a backbone's program for views of `side` pixels; Unusable where it can't be made."""
    _check_packages()
    names = [_name(layer) for layer in range(layers)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own future
            torch.onnx.export(
                pyramid,
                (torch.zeros(2, 3, side, side),),
                file,
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: {0: "images"} for name in ("images", *names)},
                # A frozen pyramid has no branches; the newer exporter takes four times as long.
                dynamo=False,
            )
    except Exception as error:  # of torch.onnx: what it has no operator for
        raise Unusable(_in_one_line(error)) from None


def _name(layer: int) -> str:
    return f"layer {layer}"


def _in_one_line(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {text}"
