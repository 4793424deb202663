"""Compilation is told apart from what a method takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from wordlight.attribution import Occlusion
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.flax.compiling import (
    SWITCH,
    CompilingClock,
    compiling_clock,
    keep_programs,
)


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


def programs_of(backend: FlaxBackend) -> dict[str, int]:
    """Of each primitive the number of its programs that were compiled."""
    made = vars(backend._programs).items()
    return {name: one._cache_size() for name, one in made if hasattr(one, "_cache_size")}


@pytest.mark.slow  # three programs of a UNet are compiled
def test_other_words_steps_images_and_guidance_compile_nothing(one_level: Path) -> None:
    backend = FlaxBackend.load(one_level)
    method = Occlusion(backend, steps=1)
    few = backend.sample(["a red circle"] * 3, steps=2, guidance_scale=3.0)
    method.attribute(few)
    made = programs_of(backend)
    assert made["sample"] == 1
    # Both prompts are drawn in parts of four images, and have more than two words.
    prompts = ["two large blue squares to the left of a red circle"] * 4
    many = backend.sample(prompts, seed=7, steps=3, guidance_scale=7.5)
    assert isinstance(many, list)
    method.attribute(many[0])
    method.with_options(steps=2).attribute(many[1])
    assert programs_of(backend) == made


@pytest.fixture
def no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """JAX as it is where nobody chose a folder, in a home of its own."""
    before = {
        name: getattr(jax.config, name)
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    }
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(SWITCH, raising=False)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_are_kept_in_the_users_cache(no_folder: Path) -> None:
    kept = no_folder / "wordlight" / "jax"
    # JAX has looked whether there is a folder before one is chosen.
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(5))
    assert keep_programs() == kept
    jax.jit(lambda x: x * 3 + 2)(jnp.ones(5))
    assert list(kept.iterdir())


def test_a_folder_that_was_chosen_stays(no_folder: Path) -> None:
    chosen = no_folder / "mine"
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    assert keep_programs() == chosen


def test_nothing_is_kept_where_that_was_switched_off(
    no_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "0")
    assert keep_programs() is None
    assert not list(no_folder.iterdir())


def test_nothing_is_kept_where_no_folder_can_be_made(
    no_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder / "file"))
    assert keep_programs() is None
    assert jax.config.jax_compilation_cache_dir is None
