"""Reads a network's weights from a folder in diffusers' format: safetensors, or msgpack where there
are none, never a pickle, and every tensor accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from wordlight.backends.flax.errors import CheckpointError, UnsupportedConfigError
from wordlight.backends.flax.former import ENDING, FORMER_ATTENTION, as_today, read_former

Network = TypeVar("Network", bound=nnx.Module)

#: The names under which diffusers and transformers save weights.
_STEMS = ("diffusion_pytorch_model", "model")
_FORMER_STEMS = ("diffusion_flax_model", "flax_model")
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
_MOST_NAMED = 5


def abstract(make: Callable[[], Network]) -> Network:
    """A network with shapes in the place of its parameters."""
    made: Network = nnx.eval_shape(make)
    return made


def without_weights(network: Network) -> Network:
    """Return the network with shapes in the place of its weights."""
    graph, state = nnx.split(network)
    bare: Network = nnx.merge(graph, jax.eval_shape(lambda weights: weights, state))
    return bare


def parameter_shapes(network: nnx.Module) -> dict[str, tuple[int, ...]]:
    """The tensors that a checkpoint of the network holds, by PyTorch's names, in its shapes."""
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {_torch_name(path): _torch_shape(path, leaf.shape) for path, leaf in flat}


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file, as today's classes have it; raises CheckpointError when it isn't there
    or isn't one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: not a JSON object")
    return as_today(content)


def load_network(
    folder: Path, read: Callable[[Mapping[str, Any]], Any], make: Callable[[Any], Network]
) -> Network:
    """A network with the weights of a folder such as ``unet/``, in float32.

    Args:
        folder: with a config.json and safetensors files: one, or shards with their index; a
            half-precision variant (``.fp16.``) where there is no other, and the msgpack file of a
            former Flax class where there is no safetensors file.
        read: makes the network's configuration of config.json.
        make: makes the network of its configuration.

    Raises:
        UnsupportedConfigError: a configuration that the network can't express.
        CheckpointError: files that can't be read, a tensor too many, too few or misshapen.
    """
    try:
        config = read(read_json(folder / "config.json"))
        network = abstract(lambda: make(config))
    except ValueError as error:
        # Flax's own: numbers of channels that don't divide into groups, and the like.
        if isinstance(error, CheckpointError):
            raise
        raise UnsupportedConfigError(f"{folder / 'config.json'}: {error}") from None
    return fill(network, _tensors(weight_files(folder), network), str(folder))


def fill(network: Network, tensors: Iterable[tuple[str, Any]], where: str) -> Network:
    """The network with its parameters, from tensors by PyTorch's names.

    Raises CheckpointError unless names and shapes are exactly the network's, of floating numbers.
    """
    graph, state = nnx.split(network)
    paths = {_torch_name(path): path for path, _ in nnx.to_flat_state(state)}
    wanted = parameter_shapes(network)
    values: dict[str, jax.Array] = {}
    missing = dict.fromkeys(wanted)
    extra, misshapen, no_numbers = [], [], []
    for given, tensor in tensors:
        name = _present_name(given, wanted)
        if name is None:
            continue
        if name not in missing:
            extra.append(given)
            continue
        del missing[name]
        shape = tuple(tensor.shape)
        if shape not in (wanted[name], _former_shape(wanted[name])):
            misshapen.append(f"{given} {shape} instead of {wanted[name]}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            no_numbers.append(f"{given} {tensor.dtype}")
        else:
            values[name] = _from_torch(paths[name], tensor.reshape(wanted[name]))
    if extra or misshapen or no_numbers or missing:
        raise CheckpointError(
            f"{where} doesn't hold the weights that its configuration asks for;"
            + _listed("misshapen", misshapen)
            + _listed("no floating-point numbers", no_numbers)
            + _listed("too many", extra)
            + _listed("missing", list(missing))
        )
    filled = [
        (path, leaf.replace(values[_torch_name(path)])) for path, leaf in nnx.to_flat_state(state)
    ]
    whole: Network = nnx.merge(graph, nnx.from_flat_state(filled))
    return whole


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a network's weights; raises CheckpointError."""
    for variant in ("", ".fp16"):
        for stem in _STEMS:
            whole = folder / f"{stem}{variant}.safetensors"
            if whole.is_file():
                return [whole]
            for ending in (f"safetensors.index{variant}.json", f"{variant}.safetensors.index.json"):
                index = folder / f"{stem}.{ending.removeprefix('.')}"
                if index.is_file():
                    return _shards(index)
    for stem in _FORMER_STEMS:
        if (whole := folder / f"{stem}{ENDING}").is_file():
            return [whole]
        if (index := folder / f"{stem}{ENDING}.index.json").is_file():
            return _shards(index)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing")
    pickles = sorted(path.name for kind in _PICKLES for path in folder.glob(kind))
    if pickles:
        raise CheckpointError(
            f"{folder} has its weights as a pickle alone ({pickles[0]}), which can run any code "
            "when it is read: save it as safetensors (safe_serialization=True)"
        )
    raise CheckpointError(f"{folder} has no weights: no {_STEMS[0]}.safetensors and the like")


def _shards(index: Path) -> list[Path]:
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{index} is damaged: no weight_map")
    names = sorted({str(name) for name in named.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} is damaged: {outside[0]!r} is no file beside it")
    files = [index.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index} names {file.name}, which is missing")
    return files


def _tensors(
    files: list[Path], network: nnx.Module
) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[Any]]]]:
    for file in files:
        if file.suffix == ENDING:
            paths = [path for path, _ in nnx.to_flat_state(nnx.state(network, nnx.Param))]
            yield from read_former(file, {path: _torch_name(path) for path in paths})
            continue
        try:
            with safe_open(file, framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dictionary
                    try:
                        tensor = opened.get_tensor(name)
                    except AttributeError:  # of a type that NumPy hasn't: eight bits and fewer
                        kind = opened.get_slice(name).get_dtype()
                        raise CheckpointError(f"{file}: {name} is quantised ({kind})") from None
                    yield name, tensor
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged: {error}") from None


def _torch_name(path: tuple[Any, ...]) -> str:
    last = "bias" if path[-1] == "bias" else "weight"
    return ".".join(str(part) for part in (*path[:-1], last))


def _torch_shape(path: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return tuple(shape)
    # Dense layers (in, out) and convolutions (height, width, in, out).
    return (shape[-1], shape[-2], *shape[:-2])


def _from_torch(path: tuple[Any, ...], tensor: np.ndarray[Any, Any]) -> jax.Array:
    if path[-1] == "kernel":
        tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return jnp.asarray(np.ascontiguousarray(tensor), jnp.float32)


def _present_name(name: str, wanted: Mapping[str, Any]) -> str | None:
    """A tensor's name today; None for one that is no weight."""
    if name in wanted:
        return name
    # transformers 5 saves the text encoder without the prefix that 4 gave it.
    name = name.removeprefix("text_model.")
    if name == "embeddings.position_ids":  # 0, 1, 2, ...
        return None
    match = re.fullmatch(r"(.*mid_block\.attentions\.0\.)(\w+)(\.weight|\.bias)", name)
    if match and match[2] in FORMER_ATTENTION:
        return f"{match[1]}{FORMER_ATTENTION[match[2]]}{match[3]}"
    return name


def _former_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Former autoencoders keep their attention's projections as 1x1 convolutions."""
    return (*shape, 1, 1) if len(shape) == 2 else shape


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f" {what}: {', '.join(names[:_MOST_NAMED])}{more};"
