"""How property tests run, in every room."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test leaves programs in the cache of whoever runs it.
os.environ.setdefault("WORDLIGHT_JAX_CACHE", "0")

# Deadlines measure how busy the machine is; the examples are the same in every run.
settings.register_profile(
    "wordlight", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wordlight")
