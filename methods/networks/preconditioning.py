"""A noise predictor that starts as the best linear one and learns only what is left of the noise.

A network narrower than its features has no room for white noise: whatever is trained, its loss
stays above `loss_floor`. Frozen features lie near few directions, so that most of the noise follows
from their covariance alone. What EDM (Karras et al. 2022, arXiv 2206.00364) does for one variance,
this does for one on each principal axis; with unit variances it is v-prediction (Salimans and Ho
2022).

Shape legend: B images, C channels, h and w grid cells, N = T + 1 corruption steps, M cells
of all images of a batch, X = C + 1 sums.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.networks.diffusion import Predictor
from methods.parts.batches import Batches
from methods.parts.dist import rank, total

TOLERATED_FLOOR = 0.2
"""A network whose loss can't fall below this can't be called trained."""


class PrincipalAxes(nn.Module):
    """The covariance of training cells, U diag(lambda) U^T, and what it says about their noise.

    With a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar) and v = a^2 lambda + s^2 an axis of a noisy
    cell has the variance v. All products are in float32, whatever the precision of the network.
    """

    axes_CC: Tensor
    """U: an axis a column, the widest first."""
    variances_C: Tensor
    """lambda, at least 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("axes_CC", torch.eye(channels))
        self.register_buffer("variances_C", torch.ones(channels))

    def fit(self, train: Batches, transform: Callable[[Tensor], Tensor]) -> None:
        """One pass over the training features, sums in float64.

        `transform` maps them to features (B, C, h, w) with a mean of zero.
        """
        channels = len(self.variances_C)
        sums_XC = torch.zeros(channels + 1, channels, dtype=torch.float64)
        for batch in train.ordered(64):
            cells_CM = transform(batch.inputs).transpose(0, 1).flatten(1).double()
            sums_XC[:-1] += (cells_CM @ cells_CM.T).cpu()
            sums_XC[-1, 0] += cells_CM.shape[1]
        device = self.axes_CC.device
        sums_XC = total(sums_XC.to(device)).cpu()
        variances_C, axes_CC = torch.linalg.eigh(sums_XC[:-1] / sums_XC[-1, 0])
        # Signs, and axes of equal variance, are free, and other machines may choose others.
        axes_CC = total((axes_CC if rank() == 0 else torch.zeros_like(axes_CC)).to(device))
        self.axes_CC.copy_(axes_CC.flip(1))
        # Rounding makes those of an axis without variance slightly negative.
        self.variances_C.copy_(variances_C.flip(0).clamp(min=0))

    def noise(
        self, network: Predictor, noisy_BChw: Tensor, steps_B: Tensor, alpha_bar_N: Tensor
    ) -> Tensor:
        """U [(s / v) z - a sqrt(lambda / v) F(z / sqrt(v), t)] for the network F.

        F = 0 gives the best linear predictor of the noise for a Gaussian of this covariance. F
        reads numbers of unit variance, and is asked for such.
        """
        level_B111 = alpha_bar_N[steps_B].float().view(-1, 1, 1, 1)
        lambda_C11 = self.variances_C[:, None, None]
        v_BC11 = noisy_variances(lambda_C11, level_B111)
        with torch.autocast(noisy_BChw.device.type, enabled=False):
            z_BChw = torch.einsum("dc,bdhw->bchw", self.axes_CC, noisy_BChw.float())
        rest_BChw = network(z_BChw * v_BC11.rsqrt(), steps_B).float()
        with torch.autocast(noisy_BChw.device.type, enabled=False):
            linear_BChw = (1 - level_B111).sqrt() / v_BC11 * z_BChw
            share_BC11 = (level_B111 * lambda_C11 / v_BC11).sqrt()
            noise_BChw = linear_BChw - share_BC11 * rest_BChw
            return torch.einsum("dc,bchw->bdhw", self.axes_CC, noise_BChw)

    def yardsticks(self, level_N: Tensor, weights_N: Tensor) -> dict[str, float]:
        """The weighted mean loss, at these alpha_bar, of predictors that need no training.

        Those are zero; s x_t, whose loss is a^2 (s^2 m + a^2) where features have the mean variance
        m; and the best linear predictor of a cell, whose loss is the mean of a^2 lambda / v.
        """
        lambda_C, level_N1 = self.variances_C.to(level_N), level_N[:, None]
        losses = {
            "no noise": torch.ones_like(level_N),
            "scaled input": level_N * ((1 - level_N) * lambda_C.mean() + level_N),
            "best linear": (level_N1 * lambda_C / noisy_variances(lambda_C, level_N1)).mean(dim=1),
        }
        return {name: float((weights_N * loss_N).mean()) for name, loss_N in losses.items()}


def noisy_variances(variances_C: Tensor, level: Tensor | float) -> Tensor:
    """v = a^2 lambda + s^2, of axes with these variances at this alpha_bar."""
    return level * variances_C + 1 - level


def loss_floor(channels: int, width: int, grid: int, reach: int) -> float:
    """The loss below which a network that predicts noise itself can't fall.

    Its output, (channels, grid, grid), is a linear map of `width` numbers in each of `reach` cells,
    so it lies in a subspace of that dimension; white noise lies in none.
    """
    return max(0.0, 1 - width * reach / (channels * grid**2))


def too_narrow(channels: int, width: int, grid: int, halvings: int) -> str:
    """The reason why a U-Net of this width can't predict noise itself; empty where it can.

    A grid that can't be halved so often is padded by a cell, whose numbers serve as well.
    """
    padded = grid % 2**halvings > 0
    least = loss_floor(channels, width, grid, (grid + padded) ** 2)
    if least <= TOLERATED_FLOOR:
        return ""
    return (
        f"its loss can't fall below {least:.2f} however long it trains: noise in {channels} "
        f"channels passes through {width} numbers a cell"
    )
