import random

import numpy as np
import pytest
import torch

from hydet.engine.checkpoint_values import to_loadable
from hydet.engine.seeding import random_state, seed_everything, set_random_state

CPU = torch.device("cpu")


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()


def test_equal_seeds_draw_equal_numbers_and_ranks_differ():
    draws = []
    for seed, rank in ((3, 0), (3, 0), (3, 1), (4, 0)):
        seed_everything(seed, rank=rank)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for other in draws[2:] for a, b in zip(draws[0], other, strict=True))


def test_states_survive_a_checkpoint(tmp_path):
    seed_everything(0)
    draw()  # leaves cached normal values in Python and NumPy
    torch.save(to_loadable(random_state(CPU), "random"), tmp_path / "state.pt")
    expected = draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert draw() == expected


def test_deterministic_algorithms_can_be_selected():
    try:
        seed_everything(0, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_negative_seeds_are_rejected():
    with pytest.raises(ValueError, match="-1"):
        seed_everything(-1)
