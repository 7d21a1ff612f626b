"""A bank of whole normal images: their frozen features, and one vector each to find them by.

Shape legend: B images, L numbers of an image's features, C numbers of an image's vector, N training
images, M kept ones, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.kcenter import kcenter_order
from kernels.topk import topk_l2
from methods.parts.bank import Sized
from methods.parts.batches import Batches
from methods.parts.cost import coreset_rows
from methods.parts.dist import local_count, rank, total, world_size
from methods.parts.progress import OnProgress, Progress
from methods.parts.seeds import generator


class ImageBank(Sized):
    """Features of normal images in halves, as the cache holds them, and their vectors."""

    images_ML: Tensor
    vectors_MC: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images_ML", torch.empty(0, 0, dtype=torch.float16))
        self.register_buffer("vectors_MC", torch.empty(0, 0))

    def fit(
        self,
        train: Batches,
        vectors_of: Callable[[Tensor], Tensor],
        rate: float,
        *,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        """Keep `rate` of the training images; below 1 those whose vectors cover the others.

        The choice is greedy k-center from a seeded start, of directions; at 1 nothing is drawn.
        """
        own_NL, own_NC = self._collected(train, vectors_of, on_progress)
        vectors_NC = own_NC.new_zeros(len(train), own_NC.shape[1])
        vectors_NC[rank() :: world_size()] = own_NC
        total(vectors_NC)
        if rate < 1:
            start = int(torch.randint(len(train), (1,), generator=generator(seed, "first image")))
            points_NC = F.normalize(vectors_NC, dim=1)
            kept_M = kcenter_order(points_NC, coreset_rows(len(train), rate), start)
        else:
            kept_M = torch.arange(len(train), device=own_NL.device)
        self.vectors_MC = vectors_NC[kept_M]
        if world_size() == 1:
            self.images_ML = own_NL if rate >= 1 else own_NL[kept_M]
            return
        mine_M = kept_M % world_size() == rank()
        images_ML = own_NL.new_zeros(len(kept_M), own_NL.shape[1])
        images_ML[mine_M] = own_NL[kept_M[mine_M] // world_size()]
        self.images_ML = total(images_ML)

    def _collected(
        self, train: Batches, vectors_of: Callable[[Tensor], Tensor], on_progress: OnProgress
    ) -> tuple[Tensor, Tensor]:
        """This rank's images (N, L), filled in place, and their vectors (N, C)."""
        count, filled = local_count(len(train), rank()), 0
        images_NL, vectors_NC = self.images_ML, list[Tensor]()
        for batch in train.ordered(32):
            flat_BL = batch.inputs.flatten(1).to(self.images_ML.device)
            if not vectors_NC:
                images_NL = self.images_ML.new_empty(count, flat_BL.shape[1])
            images_NL[filled : filled + len(flat_BL)] = flat_BL
            # As they will be searched: rounded to halves.
            vectors_NC.append(vectors_of(batch.inputs.to(flat_BL.device).half().float()))
            filled += len(flat_BL)
            on_progress(Progress(stage="bank", step=filled, steps=count))
        return images_NL, torch.cat(vectors_NC)

    def nearest(self, vectors_BC: Tensor, k: int) -> Tensor:
        """The k images whose vectors have the largest cosine, or all where there are fewer: (B, K),
        the nearest first."""
        # Of unit vectors the Euclidean distance orders as the cosine does.
        units = F.normalize(vectors_BC, dim=1), F.normalize(self.vectors_MC, dim=1)
        return topk_l2(*units, min(k, len(self.images_ML)))[1]
