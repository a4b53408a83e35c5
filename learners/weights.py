"""Weights: tensors of networks, optimisers and generators, to save and to take back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.optim import Optimizer

Part = Module | Optimizer | Generator


def follow(slow: Module, fast: Module, rate: float) -> None:
    """Move the weights of one network a share of the way to those of another."""
    with torch.no_grad():
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            one.lerp_(other, rate)


def seeded(seed: int, *names: str) -> Generator:
    """Return a generator that depends on the seed and the names of what it is for."""
    words = [seed, *(int.from_bytes(name.encode()[:16], "big") for name in names)]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state))


def tensors_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Return the tensors of networks, optimisers and generators, by part and name."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, Module):
            found = dict(part.state_dict())
        elif isinstance(part, Generator):
            found = {"state": part.get_state()}
        else:
            found = {
                f"{index}.{key}": value
                for index, moments in part.state_dict()["state"].items()
                for key, value in moments.items()
            }
        tensors |= {f"{name}/{key}": value.detach().cpu() for key, value in found.items()}
    return tensors


def load_tensors(parts: Mapping[str, Part], tensors: Mapping[str, Tensor]) -> None:
    """Take back what `tensors_of` returned.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or of another shape: another architecture.
    """
    for name, part in parts.items():
        found = {
            key.removeprefix(f"{name}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }
        if isinstance(part, Module):
            load_module(part, found, name)
        elif isinstance(part, Generator):
            if "state" not in found:
                raise ValueError(f"{name}/state: is missing")
            part.set_state(found["state"])
        else:
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in found.items():
                index, _, moment = key.partition(".")
                moments.setdefault(int(index), {})[moment] = value
            part.load_state_dict({**part.state_dict(), "state": moments})


def load_module(module: Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load a network, refusing what does not fit it in one line.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or of another shape.
    """
    expected = module.state_dict()
    for key in expected.keys() ^ tensors.keys():
        what = "is missing" if key in expected else "is unknown"
        raise ValueError(f"tensor {name}/{key}: {what}: another architecture")
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"tensor {name}/{key}: has shape {tuple(value.shape)}, must have "
                f"{tuple(expected[key].shape)}: another architecture"
            )
    module.load_state_dict(dict(tensors))
