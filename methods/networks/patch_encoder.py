"""Patches of two sizes, where they lie, and the encoder that embeds them (PatchSVDD).

Shape legend: B images, S view side in pixels, K patch side, Q side of a quarter of it, D embedding,
h and w grid cells, 4B four patches of each image. A leading 2 stands for the two sizes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.batches import Draws

COARSE, FINE = 64, 32
"""Sides of the two kinds of patch; a coarse one is made of four fine ones."""
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Steps by row and by column to the eight neighbours of a patch; the index is the label."""

Initial = Literal["pytorch", "he"]
"""Weights to start from. Through eight layers without norms PyTorch's own shrink a patch to a
thousandth, from which only thousands of steps recover; He's keep its variance."""


def beside(corners_B2: Tensor, draws: Draws, side: int, patch: int) -> tuple[Tensor, Tensor]:
    """Corners (B, 2) of a neighbour of each patch, and its direction (B,).

    A neighbour is 3/4 to 1 patch away. One that would leave the image is moved back into it and
    keeps its label, as in the official code.
    """
    label_B = draws.integers(0, len(DIRECTIONS))
    distance_B2 = 3 * patch // 4 + draws.integers(0, patch // 4, 2)
    step_B2 = torch.tensor(DIRECTIONS, device=label_B.device)[label_B] * distance_B2
    return (corners_B2 + step_B2).clamp(0, side - patch), label_B


def jittered(corners_B2: Tensor, draws: Draws, side: int, patch: int) -> Tensor:
    """Corners (B, 2) moved by up to patch / 32 pixels in each direction, but always moved."""
    reach = patch // 32
    window = 2 * reach + 1
    moves_B = draws.integers(0, window**2 - 1)
    moves_B = moves_B + (moves_B >= window**2 // 2)  # leaves out the middle, which is no move
    step_B2 = torch.stack([moves_B // window, moves_B % window], dim=1) - reach
    return (corners_B2 + step_B2).clamp(0, side - patch)


def cells(side: int, patch: int, stride: int) -> int:
    """The number of an image's patches in a row."""
    return (side - patch) // stride + 1


def spread(maps_Bhw: Tensor, side: int, patch: int, stride: int) -> Tensor:
    """Each pixel's mean over the patches that hold it: (B, S, S), 0 where there is none.

    Rows and columns are covered independently: one small matrix on either side suffices.
    """
    starts_h = stride * torch.arange(maps_Bhw.shape[1])
    pixels_S1 = torch.arange(side)[:, None]
    covers_Sh = ((pixels_S1 >= starts_h) & (pixels_S1 < starts_h + patch)).double()
    weights_Sh = (covers_Sh / covers_Sh.sum(dim=1, keepdim=True).clamp(min=1)).to(maps_Bhw)
    return weights_Sh @ maps_Bhw @ weights_Sh.T


class Encoder(nn.Module):
    """The hierarchical encoder: fine patches by eight convolutions, coarse ones from four fine.

    Nothing is padded: one pass over an image gives the embeddings of its patches, one by one.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        widths = [3, *(width * m for m in (1, 2, 4, 4, 2, 1, 1)), embedding]
        layers: list[nn.Module] = []
        for number in range(8):
            stride = 2 if number == 0 else 1
            layers += [nn.Conv2d(widths[number], widths[number + 1], 3, stride), nn.LeakyReLU(0.1)]
        self.fine = nn.Sequential(*layers[:-1], nn.Tanh())
        self.join = nn.Conv2d(embedding, 4 * width, 2)
        self.leave = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(4 * width, embedding, 1), nn.Tanh())

    def coarse(self, patches_B3KK: Tensor) -> Tensor:
        """Embeddings (B, D, 1, 1) of patches of 64 pixels, quarter by quarter."""
        quarters_B32Q2Q = patches_B3KK.unflatten(3, (2, FINE)).unflatten(2, (2, FINE))
        quarters_4B3QQ = quarters_B32Q2Q.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        fine_B22D = self.fine(quarters_4B3QQ).reshape(-1, 2, 2, self.join.in_channels)
        embedded_BD11: Tensor = self.leave(self.join(fine_B22D.permute(0, 3, 1, 2)))
        return embedded_BD11

    def dense(self, images_B3SS: Tensor, *, coarse: int, fine: int) -> tuple[Tensor, Tensor]:
        """Embeddings of all coarse and all fine patches at these strides, each (B, D, h, w)."""
        fine_BDhw = self.fine(images_B3SS)  # at stride 2, that of the first convolution
        sparse_BDhw = fine_BDhw[:, :, :: coarse // 2, :: coarse // 2]
        joined_BDhw = F.conv2d(
            sparse_BDhw, self.join.weight, self.join.bias, dilation=FINE // coarse
        )
        return self.leave(joined_BDhw), fine_BDhw[:, :, :: fine // 2, :: fine // 2]


class Direction(nn.Module):
    """Tells from two embeddings in which of eight directions the second patch lies."""

    head: Tensor

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(embedding, 128), nn.LeakyReLU(0.1), nn.Linear(128, 128), nn.LeakyReLU(0.1)
        )
        last = nn.Linear(128, len(DIRECTIONS))
        # Officially the last layer's normalised weight is outside of autograd: it stays as drawn.
        self.register_buffer("head", F.normalize(last.weight.detach(), dim=0))
        self.bias = last.bias

    def forward(self, first_BD: Tensor, second_BD: Tensor) -> Tensor:
        """Logits (B, 8)."""
        return F.linear(self.body(first_BD - second_BD), self.head, self.bias)


class Pretext(nn.Module):
    """The encoder and what trains it, at both scales."""

    def __init__(self, width: int, embedding: int, initial: Initial = "pytorch") -> None:
        super().__init__()
        self.encoder = Encoder(width, embedding)
        self.coarse, self.fine = Direction(embedding), Direction(embedding)
        if initial == "he":
            for module in self.encoder.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, 0.1)
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, coarse_4B3KK: Tensor, fine_4B3KK: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (2, B, 8) of a neighbour's direction, and distances (2, B) of a jittered patch.

        At each scale all first patches come first, then their neighbours, then all second patches,
        then the jittered ones.
        """
        logits_B8, distances_B = [], []
        for direction, embedded_4BD11 in (
            (self.coarse, self.encoder.coarse(coarse_4B3KK)),
            (self.fine, self.encoder.fine(fine_4B3KK)),
        ):
            first_BD, beside_BD, second_BD, moved_BD = embedded_4BD11.flatten(1).float().chunk(4)
            logits_B8.append(direction(first_BD, beside_BD))
            distances_B.append(torch.linalg.vector_norm(second_BD - moved_BD, dim=1))
        return torch.stack(logits_B8), torch.stack(distances_B)
