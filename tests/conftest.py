"""How property tests run and how XLA compiles, in every room, and in processes of tests too."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# No test leaves programs in the cache of whoever runs it.
os.environ.setdefault("WORDLIGHT_JAX_CACHE", "0")
# Most of the time of JAX's tests is compilation. Without optimisation, and with the older of XLA's
# two ways to emit fused loops, it takes a quarter of the time, and programs are as exact. Those of
# one process are read by the others.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false",
)
_CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Deadlines measure how busy the machine is; the examples are the same in every run.
settings.register_profile(
    "wordlight", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wordlight")
