"""Runs of a small comparison, shared by the tests of what is reported."""

import numpy as np
import pytest
from reported import SEEDS, record


@pytest.fixture
def runs():
    random = np.random.default_rng(0)
    made = []
    for seed in SEEDS:
        noise = random.normal(0, 0.002, 6)
        made += [
            record("none", seed, 4.63 + 0.02 * seed, 4.50, 2.3),
            record("neft_uniform", seed, 4.55 + 0.02 * seed + noise[0], 4.50 + noise[1], 2.5 + noise[2]),
            record("symnoise", seed, 4.70 + 0.02 * seed + noise[3], 4.50 + noise[4], 2.6 + noise[5], passes=2),
        ]
    return made
