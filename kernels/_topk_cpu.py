"""Exact nearest neighbours on the CPU: a screened search (kernels/_screen.py), compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kernels import _numba
from kernels._screen import FAR, Screen, scan, screen_of

QUERIES, ROWS = 2048, 1024  # a block of products; it stays in the cache


class _Prepared(NamedTuple):
    """What a search makes of a bank before the first query."""

    version: int
    screen: Screen
    codes_MW: Tensor


# State of the module on purpose: a bank is searched batch after batch, and what was made of it is
# kept exactly as long as the bank itself.
_PREPARED = WeakTensorKeyDictionary()


def search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (squared distances_NK, indices_NK), ascending, ties by lower index."""
    queries_ND, rows_MD = queries_ND.float().contiguous(), bank_MD.float().contiguous()
    best = np.full((len(queries_ND), k), FAR, dtype=np.float32)
    index = np.zeros((len(queries_ND), k), dtype=np.int64)
    screen, bank_codes_MW = _prepare(bank_MD)
    kind = torch.int16 if screen.dtype == torch.bfloat16 else torch.int32
    products_QR = torch.empty(min(QUERIES, len(queries_ND)), ROWS, dtype=screen.dtype)
    with _numba.threads() as threads:
        limits = np.float32(screen.slack), np.float32(screen.fine), threads
        for start in range(0, len(queries_ND), QUERIES):
            part = slice(start, start + QUERIES)
            codes_QW, squares_Q = screen.codes(queries_ND[part])
            block = queries_ND[part].numpy(), squares_Q.numpy()
            for first in range(0, len(bank_codes_MW), ROWS):
                codes_RW = bank_codes_MW[first : first + ROWS]
                products = products_QR[: len(codes_QW), : len(codes_RW)]
                torch.mm(codes_QW, codes_RW.T, out=products)
                bits = products.view(kind).numpy()
                scan(bits, first, block, rows_MD.numpy(), best[part], index[part], limits)
    return torch.from_numpy(best), torch.from_numpy(index)


def _prepare(bank_MD: Tensor) -> tuple[Screen, Tensor]:
    """The bank's screen and codes (M and some more, W), kept while the bank lives unchanged."""
    if bank_MD.is_inference():  # has no version that would tell of a change
        return _made(bank_MD)
    kept: _Prepared | None = _PREPARED.get(bank_MD)
    if kept is None or kept.version != bank_MD._version:
        kept = _Prepared(bank_MD._version, *_made(bank_MD))
        _PREPARED[bank_MD] = kept
    return kept.screen, kept.codes_MW


def _made(bank_MD: Tensor) -> tuple[Screen, Tensor]:
    screen = screen_of(bank_MD)
    return screen, screen.as_bank(*screen.codes(bank_MD))
