"""Placement of arrays: on one device, or cut up over the devices of a mesh, of one host or many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wordlight.backends.flax.layers import Array
from wordlight.backends.model_folder import ModelLoadError

#: Rows of a batch are cut up along the first, parameters along the second.
DATA, FSDP = "data", "fsdp"


def connect_hosts(
    coordinator: str | None = None, hosts: int | None = None, index: int | None = None
) -> None:
    """Make the devices of several hosts one set, that ``load(..., mesh=...)`` can use.

    Every host runs the same program with the same arguments, calls this first of all, and gets all
    results. On a TPU pod and on clusters that JAX knows nothing needs to be said.

    Args:
        coordinator: address and port of the first host, ``"10.0.0.1:1234"``.
        hosts: the number of hosts.
        index: this host's index, from 0.

    Raises:
        RuntimeError: called twice, or after JAX was used.
    """
    jax.distributed.initialize(coordinator, hosts, index)


def make_mesh(asked: Mesh | Mapping[str, int], devices: list[jax.Device]) -> Mesh:
    """A mesh with the axes ``"data"`` and ``"fsdp"``.

    Args:
        asked: the sizes of the axes, such as ``{"data": 8}`` or ``{"data": 4, "fsdp": 2}``, one of
            them -1 for all devices that are left; or a mesh of one's own with such axes.
        devices: of which it is made, all or the first of them.

    Raises:
        ModelLoadError: other axes, no size, more devices than there are.
    """
    shape = asked.shape if isinstance(asked, Mesh) else asked
    sizes = dict(shape) if isinstance(shape, Mapping) else {}
    if not sizes or not set(sizes) <= {DATA, FSDP}:
        raise ModelLoadError(
            f"a mesh has the axes {DATA!r} and {FSDP!r}, such as {{'data': 8}}, not {asked!r}"
        )
    if isinstance(asked, Mesh):
        order = [asked.axis_names.index(name) for name in (DATA, FSDP) if name in sizes]
        grid = asked.devices.transpose(order)
    else:
        given = list(sizes.values())
        whole = all(type(size) is int for size in given)
        if not whole or given.count(-1) > 1 or min(given) < -1 or 0 in given:
            raise ModelLoadError(
                f"the axes of a mesh are whole numbers, 1 or more, one of them -1: not {asked!r}"
            )
        known = math.prod(size for size in given if size != -1)
        sizes = {name: len(devices) // known if n == -1 else n for name, n in sizes.items()}
        count = math.prod(sizes.values())
        if not 1 <= count <= len(devices):
            raise ModelLoadError(f"a mesh of {asked!r} needs {count} devices; {len(devices)} there")
        grid = np.array(devices[:count])
    return Mesh(grid.reshape(sizes.get(DATA, 1), sizes.get(FSDP, 1)), (DATA, FSDP))


class Placement:
    """Puts arrays where they belong, and gets them back.

    Args:
        where: a device, or a mesh that ``make_mesh`` made.
    """

    def __init__(self, where: jax.Device | Mesh) -> None:
        self.mesh = where if isinstance(where, Mesh) else None
        self.device: jax.Device = where.devices.flat[0] if isinstance(where, Mesh) else where
        self._several_hosts = self.mesh is not None and self.mesh.is_multi_process

    @property
    def cuts(self) -> int:
        """Over how many devices the rows of a batch are cut up."""
        return 1 if self.mesh is None else int(self.mesh.shape[DATA])

    def rows(self, array: Array | npt.NDArray[Any]) -> Array:
        """Rows cut up over the devices; a number of rows that can't be is on all of them."""
        even = array.shape[0] % self.cuts == 0
        return self._put(array, _spec(DATA) if even else _spec())

    def whole(self, array: Array | npt.NDArray[Any]) -> Array:
        """Return an array that is whole on each device."""
        return self._put(array, _spec())

    def parameters(self, tree: Any) -> Any:
        """Parameters: each matrix and kernel cut up by its outputs, or else its inputs; vectors,
        and what doesn't divide evenly, on all devices."""
        pieces = 1 if self.mesh is None else int(self.mesh.shape[FSDP])
        return jax.tree.map(lambda leaf: self._put(leaf, _cut(leaf.shape, pieces)), tree)

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        """Return an array on the host, or on every host, that may be written to."""
        if self._several_hosts and not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        return np.array(array)

    def _put(self, array: Array | npt.NDArray[Any], spec: PartitionSpec) -> Array:
        if self.mesh is None:
            there: Array = jax.device_put(array, self.device)
            return there
        sharding = NamedSharding(self.mesh, spec)
        if self._several_hosts and getattr(array, "is_fully_addressable", True):
            # Each host has all of it, and gives its own devices their part.
            own = np.asarray(array)
            return jax.make_array_from_callback(own.shape, sharding, lambda part: own[part])
        spread: Array = jax.device_put(array, sharding)
        return spread


def _cut(shape: tuple[int, ...], pieces: int) -> PartitionSpec:
    """Along which axis a parameter is cut up."""
    axes = (len(shape) - 1, len(shape) - 2) if len(shape) > 1 and pieces > 1 else ()
    for axis in axes:
        if shape[axis] % pieces == 0:
            return _spec(*(FSDP if i == axis else None for i in range(len(shape))))
    return _spec()


def _spec(*axes: str | None) -> PartitionSpec:
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]
