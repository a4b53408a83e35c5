"""Weights: tensors of networks, optimisers and generators, to save and to take back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.optim import Optimizer

Part = Module | Optimizer | Generator

T = TypeVar("T")


def follow(slow: Module, fast: Module, rate: float) -> None:
    """Move the weights of one network a share of the way to those of another.

    slow <- slow + rate (fast - slow)

    Parameters
    ----------
    slow
        The network that follows, a target network or a running average; changed in place.
    fast
        The network that is followed.
    rate
        Share of the way, 0 to 1.
    """
    with torch.no_grad():
        for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
            behind.lerp_(ahead, rate)


def seeded(seed: int, *names: str) -> Generator:
    """Return a generator that depends on the seed and the names of what it is for."""
    words = [seed, *(int.from_bytes(name.encode()[:16], "big") for name in names)]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state))


def initialised(seed: int, make: Callable[[], T]) -> T:
    """Return networks whose first weights depend on the seed alone.

    PyTorch draws first weights from its global generator, which is left as it was.

    Parameters
    ----------
    seed
        Of the run.
    make
        Makes the networks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=seeded(seed, "networks"))))
        return make()


def part_of(tensors: Mapping[str, Tensor], name: str, mark: str = "/") -> dict[str, Tensor]:
    """Return the tensors of one part, by their names within it."""
    start = f"{name}{mark}"
    return {k.removeprefix(start): value for k, value in tensors.items() if k.startswith(start)}


def tensors_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Return the tensors of networks, optimisers and generators, by part and name."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, Module):
            of_part = dict(part.state_dict())
        elif isinstance(part, Generator):
            of_part = {"state": part.get_state()}
        else:
            of_part = {
                f"{index}.{key}": value
                for index, moments in part.state_dict()["state"].items()
                for key, value in moments.items()
            }
        tensors |= {f"{name}/{key}": value.detach().cpu() for key, value in of_part.items()}
    return tensors


def load_tensors(parts: Mapping[str, Part], tensors: Mapping[str, Tensor]) -> None:
    """Take back what `tensors_of` returned.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or of another shape: another architecture.
    """
    for name, part in parts.items():
        saved = part_of(tensors, name)
        if isinstance(part, Module):
            load_module(part, saved, name)
        elif isinstance(part, Generator):
            if "state" not in saved:
                raise ValueError(f"{name}/state: is missing")
            part.set_state(saved["state"])
        else:
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in saved.items():
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
