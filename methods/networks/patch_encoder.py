"""Patches of two sizes, where they lie, and the encoder that embeds them (PatchSVDD).

Shape legend: B images, S view side in pixels, K patch side, D embedding, h and w grid cells.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.training import Draws

COARSE, FINE = 64, 32
"""Sides of the two kinds of patch; a coarse one is made of four fine ones."""
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Row and column steps to the eight neighbours of a patch; the index is the label."""

Initial = Literal["pytorch", "he"]
"""Weights to start from: PyTorch's own let eight layers without norms fade a patch to a thousandth,
out of which only thousands of steps lead; He's keep its variance."""


def anywhere(draws: Draws, side: int, patch: int) -> Tensor:
    """Top left corners (B, 2) of patches that lie inside the image."""
    return draws.integers(0, side - patch + 1, 2)


def beside(corners_B2: Tensor, draws: Draws, side: int, patch: int) -> tuple[Tensor, Tensor]:
    """Corners (B, 2) of a neighbour of each patch, and its direction (B,).

    A neighbour is 3/4 to 1 patch away; one that would leave the image is moved back into it, label
    and all, as in the official code.
    """
    label = draws.integers(0, len(DIRECTIONS))
    away = 3 * patch // 4 + draws.integers(0, patch // 4, 2)
    step = torch.tensor(DIRECTIONS, device=label.device)[label] * away
    return (corners_B2 + step).clamp(0, side - patch), label


def jittered(corners_B2: Tensor, draws: Draws, side: int, patch: int) -> Tensor:
    """Corners (B, 2) moved by up to patch / 32 pixels in each direction, never by none."""
    reach = patch // 32
    window = 2 * reach + 1
    moves = draws.integers(0, window**2 - 1)
    moves = moves + (moves >= window**2 // 2)  # leaves out the middle, which is no move
    step = torch.stack([moves // window, moves % window], dim=1) - reach
    return (corners_B2 + step).clamp(0, side - patch)


def crop(images_B3SS: Tensor, corners_B2: Tensor, patch: int) -> Tensor:
    """One patch of each image: (B, 3, K, K)."""
    steps = torch.arange(patch, device=images_B3SS.device)
    rows, columns = (corners_B2[:, axis, None] + steps for axis in (0, 1))
    images = torch.arange(len(images_B3SS), device=images_B3SS.device)[:, None, None]
    cut: Tensor = images_B3SS.movedim(1, 3)[images, rows[:, :, None], columns[:, None, :]]
    return cut.movedim(3, 1)


def cells(side: int, patch: int, stride: int) -> int:
    """How many patches of an image stand in a row."""
    return (side - patch) // stride + 1


def spread(maps_Bhw: Tensor, side: int, patch: int, stride: int) -> Tensor:
    """Each pixel's mean over the patches that hold it: (B, S, S), 0 where there is none.

    Rows and columns are covered independently, so that one small matrix on either side does it.
    """
    starts = stride * torch.arange(maps_Bhw.shape[1])
    pixels = torch.arange(side)[:, None]
    covers = ((pixels >= starts) & (pixels < starts + patch)).double()
    weights = (covers / covers.sum(dim=1, keepdim=True).clamp(min=1)).to(maps_Bhw)
    return weights @ maps_Bhw @ weights.T


class Encoder(nn.Module):
    """The hierarchical encoder: fine patches by eight convolutions, coarse ones out of four fine.

    Nothing is padded, so an image in one pass has the embeddings of its patches one by one.
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
        """Patches of 64 pixels, quarter by quarter: (B, D, 1, 1)."""
        quarters = patches_B3KK.unflatten(3, (2, FINE)).unflatten(2, (2, FINE))
        apart = quarters.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        fine = self.fine(apart).reshape(-1, 2, 2, self.join.in_channels).permute(0, 3, 1, 2)
        out: Tensor = self.leave(self.join(fine))
        return out

    def dense(self, images_B3SS: Tensor, *, coarse: int, fine: int) -> tuple[Tensor, Tensor]:
        """Embeddings of all coarse and all fine patches at these strides, each (B, D, h, w)."""
        every = self.fine(images_B3SS)  # at stride 2, that of the first convolution
        some = every[:, :, :: coarse // 2, :: coarse // 2]
        joined = F.conv2d(some, self.join.weight, self.join.bias, dilation=FINE // coarse)
        return self.leave(joined), every[:, :, :: fine // 2, :: fine // 2]


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
        """Four patches an image and scale, (first, neighbour, second, jittered) one after another.

        Returns logits (2, B, 8) of the neighbour's direction and distances (2, B) of the jittered.
        """
        found = [
            (self.coarse, self.encoder.coarse(coarse_4B3KK)),
            (self.fine, self.encoder.fine(fine_4B3KK)),
        ]
        logits, distances = [], []
        for direction, embedded in found:
            first, beside, second, moved = embedded.flatten(1).float().chunk(4)
            logits.append(direction(first, beside))
            distances.append(torch.linalg.vector_norm(second - moved, dim=1))
        return torch.stack(logits), torch.stack(distances)
