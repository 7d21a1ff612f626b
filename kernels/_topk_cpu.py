"""Exact nearest neighbours on the CPU: a screened search (kernels/_screen.py), compiled.

Shape suffixes: N queries (Q a block), M bank rows (R a block), D coordinates, W code, K neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kernels._scan import FAR
from kernels._screen import Screen, screen_of

QUERIES = 1 << 14  # whose codes are held at once
ROWS = 1024  # of the bank in a block of products; it stays in the cache


# State of the module on purpose: a bank is searched batch after batch, and what is prepared for a
# version of it, screen and codes, lives as long as the bank itself.
_PREPARED = WeakTensorKeyDictionary()


def search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (squared distances_NK, indices_NK), ascending, ties by lower index."""
    queries_ND, rows_MD = queries_ND.float().contiguous(), bank_MD.float().contiguous()
    best_NK = np.full((len(queries_ND), k), FAR, dtype=np.float32)
    index_NK = np.zeros((len(queries_ND), k), dtype=np.int64)
    screen, bank = _prepare(bank_MD)
    for start in range(0, len(queries_ND), QUERIES):
        part = slice(start, start + QUERIES)
        coded = screen.codes(queries_ND[part])
        best = best_NK[part], index_NK[part]
        screen.search(queries_ND[part], coded, rows_MD, bank, best, ROWS)
    return torch.from_numpy(best_NK), torch.from_numpy(index_NK)


def _prepare(bank_MD: Tensor) -> tuple[Screen, tuple[Tensor, ...]]:
    """The bank's screen and codes; made once while the bank is unchanged."""
    prepared = _PREPARED.get(bank_MD)
    # A tensor of inference has no version that would tell of a change.
    version = None if bank_MD.is_inference() else bank_MD._version
    if prepared is None or prepared[0] != version:
        screen = screen_of(bank_MD)
        prepared = version, screen, screen.as_bank(*screen.codes(bank_MD))
        if version is not None:
            _PREPARED[bank_MD] = prepared
    return prepared[1], prepared[2]
