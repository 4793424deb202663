"""One thread, and compiled programs kept between runs: most of the time here is compilation."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import jax

_CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "jax"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
