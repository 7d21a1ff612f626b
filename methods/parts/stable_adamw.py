"""StableAdamW: AdamW whose step is made smaller where the gradient came as a surprise.

Wortsman et al. 2023 ("Stable and low-precision training"), Algorithm 2, as Dinomaly and INP-Former
have it (`optimizers/StableAdamW.py`): with AMSGrad, and with the gradient over AdamW's denominator
in place of the paper's ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor


class StableAdamW(torch.optim.Optimizer):
    """AdamW with AMSGrad; each tensor's step is divided by max(1, RMS(gradient / denominator))."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, settings | {"amsgrad": True})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; the moments are kept with each parameter."""
        assert closure is None, "the loop computes the gradients"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return None

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                state[name] = torch.zeros_like(parameter)
        state["step"] += 1
        steps, (first, second) = int(state["step"]), group["betas"]
        state["exp_avg"].lerp_(gradient, 1 - first)
        squares = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        squares = torch.maximum(state["max_exp_avg_sq"], squares, out=state["max_exp_avg_sq"])
        denominator = (squares.sqrt() / math.sqrt(1 - second**steps)).add_(group["eps"])
        # The current gradient, not the first moment: that is what surprises.
        surprise = (gradient / denominator).square_().mean().sqrt_().clamp_(min=1)
        size = group["lr"] / (1 - first**steps)
        # The divisor stays a tensor: asking for its number would make a GPU wait.
        parameter.addcdiv_(state["exp_avg"], denominator.mul_(surprise), value=-size)
