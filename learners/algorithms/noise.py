"""Noise on scores, where actors explore: logistic for one action, Gumbel for one of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

LEAST_UNIFORM = 1e-6
"""The uniform numbers that become noise lie at least so far from 0 and 1."""

MOST_NOISE = 15.0
"""Logistic noise is less than this, given `LEAST_UNIFORM`."""


def logistic(size: Sequence[int], generator: Generator) -> Tensor:
    """Return logistic noise, less than MOST_NOISE."""
    return torch.logit(_uniform(size, generator))


def gumbel_noise(size: Sequence[int], generator: Generator) -> Tensor:
    """Return Gumbel noise."""
    return -torch.log(-torch.log(_uniform(size, generator)))


def _uniform(size: Sequence[int], generator: Generator) -> Tensor:
    uniform = torch.rand(tuple(size), generator=generator)
    return uniform.clamp(LEAST_UNIFORM, 1.0 - LEAST_UNIFORM)
