"""Compilation is told apart from what a method takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from wordlight.backends.flax.compiling import CompilingClock, compiling_clock


def test_a_moment_counts_once() -> None:
    clock = CompilingClock()
    clock.note("/jax/core/compile/jaxpr_trace_duration", 1.0, 2.0)
    clock.note("/jax/core/compile/jaxpr_trace_duration", 3.0, 3.5)
    # The outer trace ends after those inside it.
    clock.note("/jax/core/compile/jaxpr_trace_duration", 0.5, 4.0)
    clock.note("/jax/core/compile/backend_compile_duration", 5.0, 7.0)
    clock.note("/jax/pgle", 0.0, 100.0)
    assert clock.seconds == pytest.approx(3.5 + 2.0)


def test_the_first_call_compiles_and_the_second_does_not() -> None:
    program = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))
    clock = compiling_clock()
    before = clock.seconds
    array = jnp.ones((7, 7))
    program(array).block_until_ready()
    first = clock.seconds
    program(array).block_until_ready()
    assert before < first == clock.seconds
