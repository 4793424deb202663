"""Run as a program of its own, whose JAX sees several devices or hosts: writes what it finds, for
``test_sharding.py`` to judge."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wordlight.backends import AttentionQuery, Conditioning, load, trace
from wordlight.backends.flax import programs as module
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.flax.devices import connect_hosts
from wordlight.backends.testing import check_backend

COLLECTIVE = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast)"
)
#: No multiple of the number of devices.
PROMPTS = ["a red circle", "two blue squares", "a cross", "a green star", "three rings"]


class Compiled:
    """In the place of a jitted function: compiles it, keeps the program's text and runs it."""

    def __init__(self, jitted: Any) -> None:
        self.jitted = jitted

    def __call__(self, *args: Any, **static: Any) -> Any:
        self.args, program = args, self.jitted.lower(*args, **static).compile()
        self.text, self.memory = program.as_text(), program.memory_analysis()
        return program(*args)

    def collectives(self) -> list[str]:
        return COLLECTIVE.findall(self.text)


def run(backend: FlaxBackend) -> tuple[dict[str, np.ndarray], Compiled]:
    """A traced run."""
    backend._programs.sample = compiled = Compiled(backend._programs.sample)  # type: ignore[assignment]
    with trace(backend, AttentionQuery(layers=("mid_block", "up_blocks"))) as traced:
        backend.sample(PROMPTS, seed=4, steps=2, guidance_scale=5.0, height=16, width=16)
    made = {
        "latents": np.stack([t.latents for t in traced.trajectories]),
        "images": np.stack([t.image for t in traced.trajectories]),
    }
    for k in range(len(traced.attention[0].means)):
        made[f"map{k}"] = np.stack([one.means[k].values for one in traced.attention])
    return made, compiled


def primitives(backend: FlaxBackend) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = backend.asarray(rng.standard_normal((3, 4, 8, 8)))
    text = backend.encode(PROMPTS[:3]).embeddings
    return {"denoise": backend.to_numpy(backend.denoise(rows, 401.0, Conditioning(text)))}


def held(backend: FlaxBackend) -> tuple[int, int]:
    """Bytes of the parameters, all of them and on one device."""
    leaves = jax.tree.leaves(backend._parameters["unet"])
    return sum(a.nbytes for a in leaves), sum(a.addressable_shards[0].data.nbytes for a in leaves)


def concatenated(compiled: Compiled) -> list[str]:
    """The collectives of the same program with the guidance's rows in two blocks."""
    interleave, pairs = module._interleave, module._pairs

    def halves(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    module._interleave, module._pairs = lambda *blocks: jnp.concatenate(blocks), halves
    try:
        other = compiled.jitted.lower(*compiled.args, query=None).compile()
    finally:
        module._interleave, module._pairs = interleave, pairs
    return COLLECTIVE.findall(other.as_text())


def eight_devices(folder: str, out: Path) -> None:
    facts: dict[str, Any] = {"devices": len(jax.devices())}
    meshes: dict[str, Any] = {"one": None, "data": {"data": -1}, "fsdp": {"data": 2, "fsdp": 4}}
    for name, mesh in meshes.items():
        backend = load(folder, framework="flax", mesh=mesh)
        assert isinstance(backend, FlaxBackend)
        made, compiled = run(backend)
        facts[name] = {"held": held(backend), "collectives": compiled.collectives()}
        if name == "data":
            facts["rows"] = compiled.args[1].shape[0]
            facts["concatenated"] = concatenated(compiled)
        if name == "fsdp":
            kernel = backend._parameters["unet"]["conv_in"]["kernel"][...]
            facts["conv_in"] = [str(part) for part in kernel.sharding.spec]
        else:
            made |= primitives(backend)
        np.savez(out / f"{name}.npz", **made)
    (out / "facts.json").write_text(json.dumps(facts))


def conform(folder: str, _out: Path) -> None:
    """Every primitive keeps to its rules on a mesh too: rows, and weights, cut up."""
    check_backend(load(folder, framework="flax", mesh={"data": 4, "fsdp": 2}))


def two_hosts(folder: str, out: Path, address: str, index: str) -> None:
    connect_hosts(address, 2, int(index))
    backend = load(folder, framework="flax", mesh={"data": -1})
    assert isinstance(backend, FlaxBackend)
    assert jax.device_count() == 2 * jax.local_device_count()
    np.savez(out / f"host{index}.npz", **run(backend)[0])


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    what: Callable[..., None] = {
        "eight": eight_devices,
        "hosts": two_hosts,
        "conform": conform,
    }[sys.argv[1]]
    what(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
