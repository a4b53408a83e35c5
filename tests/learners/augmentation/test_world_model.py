"""The small world model and persistence: what stays real, what is learnt, what persists."""

from __future__ import annotations

import torch
from learner_scenarios import scenario

from finecast.learners.augmentation.error import world_error
from finecast.learners.augmentation.predictor import log_loss
from finecast.learners.augmentation.synthetic import persisted, requests_and_reach
from finecast.learners.augmentation.world_model import (
    fit_world_model,
    imagine_world,
    world_forecast,
)


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator of its own for every use."""
    return torch.Generator().manual_seed(seed)


def cycle(draws: int = 6, slots: int = 10, users: int = 3, models: int = 4):
    """Every user goes through the models in order; the reach falls by a tenth every slot."""
    begin = torch.arange(draws)[:, None, None] + 2 * torch.arange(users)
    requests = (begin + torch.arange(slots)[:, None]) % models
    reach = 3.0 * 0.9 ** torch.arange(slots, dtype=torch.float64)[:, None, None]
    return requests, reach.expand(draws, slots, users, 2).contiguous()


def test_learns_what_can_be_told():
    """A cycle of models and a steady fall of the reach are forecast almost surely."""
    requests, reach = cycle()
    model = fit_world_model(requests, reach, 4, generator(), steps=300)
    chance, log_reach = world_forecast(model, requests, requests, reach)
    assert log_loss(chance[:, :-1], requests[:, 1:]) < 0.2
    assert float((log_reach[:, :-1] - reach[:, 1:].log()).abs().max()) < 0.02


def test_imagines_from_the_slot_on():
    """Slots before `begin` are those of the real draws; the imagined ones follow the cycle."""
    requests, reach = cycle()
    model = fit_world_model(requests, reach, 4, generator(), steps=300)
    begin = torch.tensor([1, 2, 3, 4, 9, 10])
    made, made_reach = imagine_world(model, requests, reach, begin, generator(1))
    for i, first in enumerate(begin.tolist()):
        assert torch.equal(made[i, :first], requests[i, :first])
        assert torch.equal(made_reach[i, :first], reach[i, :first])
    assert float((made == requests).float().mean()) > 0.9
    again = imagine_world(model, requests, reach, begin, generator(1))
    assert torch.equal(again[0], made)
    assert torch.equal(again[1], made_reach)


def test_error_is_relative_to_persistence_and_ignorance():
    """A model that knows the draws it is measured on has none; one that takes them wrongly has."""
    draws = [scenario(slots=12).generate(seed) for seed in range(6)]
    requests, reach = requests_and_reach(draws)
    models = draws[0].models
    knows = fit_world_model(requests, reach, models, generator(), width=64, steps=400)
    assert world_error(knows, draws, draws) == 0.0
    other = (requests + torch.arange(12)[:, None]) % models  # users who never repeat a request
    misled = fit_world_model(other, reach, models, generator())
    assert world_error(misled, draws, draws) > 0.5


def test_last_values_persist():
    """From slot `begin` on: a user who asked for nothing asks again for what it last asked for."""
    requests = torch.tensor([[[0, 1], [-1, 2], [3, 3], [4, 4]]])
    reach = torch.arange(8.0).reshape(1, 4, 2, 1)
    made, made_reach = persisted(requests, reach, torch.tensor([2]))
    assert made.tolist() == [[[0, 1], [-1, 2], [0, 2], [0, 2]]]
    assert made_reach.flatten().tolist() == [0, 1, 2, 3, 2, 3, 2, 3]
    whole, _ = persisted(requests, reach, torch.tensor([4]))
    assert torch.equal(whole, requests)
