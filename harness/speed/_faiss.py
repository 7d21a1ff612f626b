"""Exact search by faiss, where it is installed: what ``speed`` compares with."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

AVAILABLE = find_spec("faiss") is not None


def flat_index(bank_MD: Tensor) -> Any:
    """Return a flat L2 index of the bank, on the bank's device."""
    import faiss

    index: Any = faiss.IndexFlatL2(bank_MD.shape[1])
    if bank_MD.is_cuda:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index.add(bank_MD.cpu().numpy())
    return index


def search(index: Any, queries_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (squared distances_NK, indices_NK)."""
    distances, indices = index.search(queries_ND.cpu().numpy(), k)
    return torch.from_numpy(distances), torch.from_numpy(indices)
