"""DeepLIFT's rescale rule, carried forward through a function of JAX beside its two passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from wordlight.backends.flax.layers import Array

#: Below this difference a smooth function's slope is its derivative in the middle: there the error
#: of that, difference² / 24, is that of the quotient in float32, 6e-8 / difference.
_NEAR = 1e-2
#: Functions that are compiled on their own inside another one.
_CALLS = frozenset({"jit", "pjit"})
#: Linear in each of their arguments.
_MULTILINEAR = frozenset(
    (
        "broadcast_in_dim conv_general_dilated convert_element_type copy dot_general dynamic_slice "
        "expand_dims gather mul neg reduce_sum reshape rev slice squeeze transpose"
    ).split()
)
#: Linear in all of their arguments together.
_ADDITIVE = frozenset("add add_any concatenate pad select_n sub".split())
#: Whose arguments are all of the output's shape, or scalars.
_OF_ONE_SHAPE = frozenset("add add_any sub".split())
_SMOOTH = frozenset("cos erf erfc exp logistic sin tanh".split())


class Lifted(NamedTuple):
    """The activations of two passes, and the parts of their difference, in one array.

    Attributes:
        rows: ``(2 + parts, *shape)``: at the point, at the baseline, and the parts.
    """

    rows: Array

    @property
    def ends(self) -> Array:
        """The activations of the two passes, ``(2, *shape)``."""
        return self.rows[:2]

    @property
    def parts(self) -> Array:
        """The parts, ``(parts, *shape)``."""
        return self.rows[2:]

    @property
    def middle(self) -> Array:
        """The mean of the two passes' activations."""
        return self.ends.mean(axis=0).astype(self.rows.dtype)


def rescaled_parts(
    function: Callable[[Array], Array], point: Array, baseline: Array, parts: Array
) -> Array:
    """Return the part that each part of ``point - baseline`` has in ``function(point) -
    function(baseline)``, by the rescale rule (Shrikumar et al. 2017, arXiv 1704.02685).

    The rule of each operation is that of ``backends/torch/rescale_rule.py``. A softmax must be
    that of ``layers``: of its exponentials and their sum one by one, parts would overflow.

    Args:
        function: of one row.
        point, baseline: ``(1, ...)``.
        parts: ``(parts, ...)``.

    Returns:
        ``(parts, *shape of the function's row)``.

    Raises:
        ValueError: the function has an operation for which there is no rule.
    """
    program = jax.make_jaxpr(function)(point)
    rows = [rows.astype(point.dtype) for rows in (point, baseline, parts)]
    given = Lifted(jnp.concatenate(rows)[:, None])
    (made,) = _evaluated(program.jaxpr, program.consts, [given])
    if not isinstance(made, Lifted):
        return jnp.zeros((len(parts), *made.shape[1:]), made.dtype)
    return made.parts[:, 0]


def _evaluated(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Return a program's outputs: lifted where they depend on lifted inputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for operation in jaxpr.eqns:
        made = _applied(operation, [read(atom) for atom in operation.invars])
        values.update(zip(operation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _applied(operation: JaxprEqn, given: list[Any]) -> list[Any]:
    name = operation.primitive.name
    lifted = [isinstance(one, Lifted) for one in given]
    if not any(lifted):
        return _bound(operation, given)
    if name in _CALLS:
        inner = operation.params["jaxpr"]
        if operation.params["name"] == "softmax":
            return [_softmax(given[0])]
        return _evaluated(inner.jaxpr, inner.consts, given)
    if name in _SMOOTH:
        return [_smooth(operation, given[0])]
    if name in _SLOPES:
        return [_by_slope(operation, given[0])]
    if name in _ADDITIVE:
        return [_additive(operation, given)]
    if (name in _MULTILINEAR and sum(lifted) == 1) or (name == "div" and not lifted[1]):
        return [_by_rows(operation, given)]
    if name in _MULTILINEAR:
        return [_product(operation, given)]
    raise ValueError(f"DeepLIFT has no rule for JAX's operation {name!r}, which the model has")


def _bound(operation: JaxprEqn, given: Sequence[Any]) -> list[Any]:
    """The outputs of an operation for plain arrays."""
    primitive: Any = operation.primitive
    made = primitive.bind(*given, **operation.params)
    return list(made) if primitive.multiple_results else [made]


def _by_rows(operation: JaxprEqn, given: Sequence[Any]) -> Lifted:
    """A linear operation of each row."""
    lifted = [isinstance(one, Lifted) for one in given]

    def at(*values: Any) -> Array:
        made: Array = _bound(operation, values)[0]
        return made

    rows = [one.rows if there else one for one, there in zip(given, lifted, strict=True)]
    return Lifted(jax.vmap(at, [0 if there else None for there in lifted])(*rows))


def _additive(operation: JaxprEqn, given: Sequence[Any]) -> Lifted:
    """Apply a sum or difference: what doesn't depend on the text has no parts."""
    n_rows = next(len(one.rows) for one in given if isinstance(one, Lifted))
    output: Any = operation.outvars[0].aval
    shape = output.shape if operation.primitive.name in _OF_ONE_SHAPE else None

    def lifted(one: Any) -> Any:
        if isinstance(one, Lifted) or not jnp.issubdtype(jnp.result_type(one), jnp.floating):
            return one
        whole = jnp.asarray(one) if shape is None else jnp.broadcast_to(one, shape)
        widths = [(0, n_rows - 2)] + [(0, 0)] * whole.ndim
        return Lifted(jnp.pad(jnp.stack([whole, whole]), widths))

    return _by_rows(operation, [lifted(one) for one in given])


def _product(operation: JaxprEqn, given: Sequence[Lifted]) -> Lifted:
    """½(a + a°)·Δb + ½(b + b°)·Δa."""
    first, second = given

    def at(a: Array, b: Array) -> Array:
        made: Array = _bound(operation, [a, b])[0]
        return made

    parts = jax.vmap(at, (0, None))(first.parts, second.middle)
    parts = parts + jax.vmap(at, (None, 0))(first.middle, second.parts)
    return Lifted(jnp.concatenate([jax.vmap(at)(first.ends, second.ends), parts]))


def _smooth(operation: JaxprEqn, x: Lifted) -> Lifted:
    """An elementwise function whose slope changes little within ``_NEAR``."""

    def plain(values: Array) -> Array:
        made: Array = _bound(operation, [values])[0]
        return made

    ends, middle = _wide(x.ends), _wide(x.middle)
    step = ends[0] - ends[1]
    close = jnp.abs(step) <= _NEAR
    derivative: Array = jax.jvp(plain, (middle,), (jnp.ones_like(middle),))[1]
    values = plain(ends)
    quotient = (values[0] - values[1]) / jnp.where(close, 1.0, step)
    return _scaled(x, values, jnp.where(close, derivative, quotient))


#: Elementwise functions whose slope between two points has a formula.
_SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "square": lambda a, b: a + b,
    "sqrt": lambda a, b: 1 / (jnp.sqrt(a) + jnp.sqrt(b)),
    "rsqrt": lambda a, b: -1 / (a * jnp.sqrt(b) + b * jnp.sqrt(a)),
}


def _by_slope(operation: JaxprEqn, x: Lifted) -> Lifted:
    ends = _wide(x.ends)
    return _scaled(x, _bound(operation, [ends])[0], _SLOPES[operation.primitive.name](*ends))


def _scaled(x: Lifted, ends: Array, slope: Array) -> Lifted:
    rows = jnp.concatenate([ends, slope * _wide(x.parts)])
    return Lifted(rows.astype(x.rows.dtype))


def _softmax(x: Lifted) -> Lifted:
    """The exponential of log p = x - log Σ exp(x). The logarithm of the sum moves such that the
    probabilities' parts sum to nothing over a row, as their differences do."""
    ends = jax.nn.log_softmax(_wide(x.ends), axis=-1)
    slope, changes = _exponential_slope(*ends), _wide(x.parts)
    moved = (slope * changes).sum(-1, keepdims=True)
    whole = jnp.maximum(slope.sum(-1, keepdims=True), float(np.finfo(np.float32).tiny))
    shared = slope * (changes - moved / whole)
    return Lifted(jnp.concatenate([jnp.exp(ends), shared]).astype(x.rows.dtype))


def _exponential_slope(point: Array, baseline: Array) -> Array:
    # Masked scores are minus infinity in both passes.
    same = point == baseline
    step = jnp.where(same, 0.0, point - baseline)
    middle = jnp.where(same, point, (point + baseline) / 2)
    half = jnp.clip(step, -1, 1) / 2
    # sinh(h) / h; of small h by its series, to rounding.
    series = 1 + half**2 / 6 * (1 + half**2 / 20 * (1 + half**2 / 42))
    tiny = jnp.abs(half) < 0.05
    near = jnp.exp(middle) * jnp.where(tiny, series, jnp.sinh(half) / jnp.where(tiny, 1.0, half))
    far = (jnp.exp(point) - jnp.exp(baseline)) / jnp.where(same, 1.0, step)
    return jnp.where(jnp.abs(step) < 1, near, far)


def _wide(array: Array) -> Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
