"""anomalib's half of `speed --op anomalib`: run by the python of an environment that has it.

``python -m harness.speed._anomalib_side SPEC.json``: fits and scores one of its models in a plain
loop, without Lightning, on the images and weights that the other half named.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_views
from harness.cell import Data
from harness.features import open_split
from harness.memory import peak_memory, settled_memory

BATCH = 32


def main(spec: dict[str, Any]) -> tuple[float, float, int, int]:
    """Seconds of a fit and a test, bytes at the peak and after the imports; scores go to a file."""
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    data = spec["data"]
    root = Path(data["root"]) if data["root"] else None
    images_of = Data(**{**data, "root": root, "categories": tuple(data["categories"])})
    imported = settled_memory()
    started = time.perf_counter()
    model = _model(spec)
    model.train()
    with torch.no_grad():
        for images in _batches(*open_split(images_of, "train"), spec):
            model(images)
        if spec["method"] == "patchcore":
            model.subsample_embedding(spec["coreset"])
        else:
            model.fit()
        fitted = time.perf_counter()
        model.eval()
        outputs = [model(images) for images in _batches(*open_split(images_of, "test"), spec)]
        maps = torch.cat([output.anomaly_map[:, 0] for output in outputs])
        scores = torch.cat([output.pred_score.flatten() for output in outputs])
    done = time.perf_counter()
    np.savez(spec["out"], maps=maps.numpy(), images=scores.numpy())
    return fitted - started, done - fitted, peak_memory(), imported


def _model(spec: dict[str, Any]) -> Any:
    """The model with the weights of the file; their names are timm's in both halves."""
    shared = {"backbone": spec["backbone"], "layers": spec["layers"], "pre_trained": False}
    if spec["method"] == "patchcore":
        model: Any = PatchcoreModel(**shared, num_neighbors=spec["neighbours"])
    else:
        model = PadimModel(**shared, n_features=spec["channels"])
    state = torch.load(spec["state"], weights_only=True)
    model.feature_extractor.feature_extractor.load_state_dict(state)
    return model


def _batches(
    benchmark: Benchmark, samples: Sequence[Sample], spec: dict[str, Any]
) -> Iterator[Tensor]:
    """Normalised images (B, 3, S, S); the next batch is read while this one is worked on."""
    mean, std = (torch.tensor(spec[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pieces = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(load_views, benchmark, pieces[0], spec["resize"], spec["crop"])]
        for following in [*pieces[1:], None]:
            views = ahead.pop().result()
            if following is not None:
                ahead.append(
                    reader.submit(load_views, benchmark, following, spec["resize"], spec["crop"])
                )
            yield (torch.from_numpy(views).float() / 255 - mean) / std


if __name__ == "__main__":
    print(*main(json.loads(Path(sys.argv[1]).read_text())))
