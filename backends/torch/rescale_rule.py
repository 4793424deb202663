"""DeepLIFT's rescale rule, carried forward through a network beside its two passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from wordlight.backends.torch.forward_mode import forward_mode

#: Below this difference a smooth function's slope is its derivative in the middle: there the error
#: of that, difference² / 24, is that of the quotient in float32, 6e-8 / difference.
_NEAR = 1e-2
#: How far the parts of the whole difference may be from the difference of the outputs, of its norm
#: and of the output's, before the rule is said not to hold; half precision has 8 to 11 digits.
_TOLERANCE, _TOLERANCE_IN_HALF = (1e-2, 1e-4), (2e-1, 5e-2)

Slope = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Lifted(torch.Tensor):
    """The activations of two passes, and the parts of their difference.

    The tensor itself has the activations at the point. Every function of PyTorch can be called with
    it, and gives another one.

    Attributes:
        baseline: the activations at the baseline, of the same shape.
        parts: ``(parts, *shape)``.
    """

    baseline: torch.Tensor
    parts: torch.Tensor

    @classmethod
    def of(cls, point: torch.Tensor, baseline: torch.Tensor, parts: torch.Tensor) -> Lifted:
        """Return the two passes' activations with the parts of their difference."""
        made = point.as_subclass(cls)
        made.baseline, made.parts = baseline, parts
        return made

    @property
    def point(self) -> torch.Tensor:
        """The activations at the point, as a tensor like any other."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name.startswith("__i") and name[3:].rstrip("_") in _IN_PLACE:
            return _written(f"__{name[3:]}", args, kwargs)
        if name.endswith("_") and not name.startswith("_"):
            return _written(name.rstrip("_"), args, kwargs)
        kwargs.pop("inplace", None)
        rule = _RULES.get(func)
        return _multilinear(func, args, kwargs) if rule is None else rule(func, *args, **kwargs)


#: Operators that write into their left side, as ``x += y``.
_IN_PLACE = frozenset(("add", "sub", "mul", "truediv"))


def rescaled_parts(
    function: Callable[[torch.Tensor], torch.Tensor],
    point: torch.Tensor,
    baseline: torch.Tensor,
    parts: torch.Tensor,
) -> torch.Tensor:
    """The part that each part of ``point - baseline`` has in ``function(point) -
    function(baseline)``, by the rescale rule (Shrikumar et al. 2017, arXiv 1704.02685).

    At each operation the parts of the inputs' difference go on to the output. Linear ones take them
    as they take any input. An elementwise function multiplies by Δf/Δx, the slope between its two
    inputs (by its derivative where these are all but the same). A product a·b, and with it
    attention's, gives ½(a + a°)·Δb + ½(b + b°)·Δa; a quotient is the product with the reciprocal,
    and softmax is written out as exponentials, their sum and a quotient, norms as means, products
    and a root. So parts that sum to the whole difference do so after each operation too.

    Args:
        function: of one row.
        point, baseline: ``(1, ...)``.
        parts: ``(parts, ...)``.

    Returns:
        ``(parts, *shape of the function's row)``.

    Raises:
        ValueError: the function has an operation for which there is no rule.
    """
    # The whole difference goes along, as a part more: where it doesn't come out, a rule is missing.
    given = torch.cat([parts, point - baseline])[:, None]
    with forward_mode():
        made = function(Lifted.of(point, baseline, given))
        before = function(baseline)
    if not isinstance(made, Lifted):
        made = Lifted.of(made, made, made.new_zeros((len(given), *made.shape)))
    _check_whole(made, before)
    return made.parts[:-1, 0]


def _check_whole(made: Lifted, before: torch.Tensor) -> None:
    """Raises ValueError where the whole difference doesn't come out as that of the outputs."""
    tolerance = _TOLERANCE_IN_HALF if made.dtype.itemsize < 4 else _TOLERANCE
    point, before, whole = (_wide(t) for t in (made.point, before, made.parts[-1]))
    off, size = (whole - (point - before)).norm(), (point - before).norm()
    if not off <= tolerance[0] * size + tolerance[1] * point.norm():
        raise ValueError(
            f"parts sum to something else than the difference of the outputs ({float(off):.2g} of "
            f"{float(size):.2g}): the model has an operation that DeepLIFT has no rule for here"
        )


def _multilinear(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A function that is linear in each tensor: its derivative in the middle of the two passes
    takes differences of the inputs to those of the output."""
    leaves, spec = tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Lifted)]
    inputs: list[Lifted] = [leaves[place] for place in places]

    def at(*values: torch.Tensor) -> Any:
        given = list(leaves)
        for place, value in zip(places, values, strict=True):
            given[place] = value
        positional, named = tree_unflatten(given, spec)
        return func(*positional, **named)

    points = [one.point for one in inputs]
    value = at(*points)
    found, how = tree_flatten(value)
    before = tree_leaves(at(*(one.baseline for one in inputs)))
    if not all(_changes_little_by_little(one) for one in found):
        return _same_for_both(func, value, found, before)
    middles = points
    if len(inputs) > 1:
        middles = [(one + other.baseline) / 2 for one, other in zip(points, inputs, strict=True)]

    def along(*tangents: torch.Tensor) -> list[torch.Tensor]:
        changes: list[torch.Tensor] = torch.func.jvp(
            lambda *values: tree_leaves(at(*values)), tuple(middles), tangents
        )[1]
        return changes

    changes = torch.func.vmap(along)(*(one.parts for one in inputs))
    return tree_unflatten(
        [Lifted.of(*one) for one in zip(found, before, changes, strict=True)], how
    )


def _changes_little_by_little(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _same_for_both(func: Any, value: Any, found: list[Any], before: list[Any]) -> Any:
    """What doesn't change little by little (sizes, indices) must be the same in both passes."""
    pairs = zip(found, before, strict=True)
    if all(torch.equal(*p) if isinstance(p[0], torch.Tensor) else p[0] == p[1] for p in pairs):
        return value
    raise ValueError(
        f"{getattr(func, '__name__', func)} decides by the text what is computed, and DeepLIFT has "
        "no rule for that"
    )


def _written(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A function that writes its result into its first argument."""
    into = args[0]
    if not isinstance(into, Lifted) or not hasattr(torch.Tensor, name):
        raise ValueError("what depends on the text is written into another tensor")
    made = getattr(torch.Tensor, name)(*args, **kwargs)
    into.point.copy_(made.point)
    into.baseline, into.parts = made.baseline, made.parts
    return into


def _set(func: Any, into: Any, index: Any, value: Any) -> None:
    """``into[index] = value``."""
    if not isinstance(into, Lifted):
        raise ValueError("what depends on the text is written into another tensor")
    lifted = isinstance(value, Lifted)
    place = index if isinstance(index, tuple) else (index,)
    into.baseline, into.parts = into.baseline.clone(), into.parts.clone()
    into.point[index] = value.point if lifted else value
    into.baseline[index] = value.baseline if lifted else value
    into.parts[(slice(None), *place)] = value.parts if lifted else 0.0


# Elementwise functions.


def _by_slope(slope: Slope) -> Callable[..., Lifted]:
    """The rule of a function of one argument whose slope between two points has a formula."""

    def rule(func: Any, x: Lifted, **kwargs: Any) -> Lifted:
        point, baseline = x.point, x.baseline
        steep = slope(_wide(point), _wide(baseline)).to(point.dtype)
        return Lifted.of(func(point, **kwargs), func(baseline, **kwargs), steep * x.parts)

    return rule


def _smooth(func: Any, x: Lifted, *args: Any, **kwargs: Any) -> Lifted:
    """The rule of a function whose slope changes little within ``_NEAR``."""
    return _by_quotient(_NEAR, func, x, *args, **kwargs)


def _piecewise(func: Any, x: Lifted, *args: Any, **kwargs: Any) -> Lifted:
    """The rule of a function made of straight pieces, whose differences don't lose digits."""
    return _by_quotient(0.0, func, x, *args, **kwargs)


def _by_quotient(near: float, func: Any, x: Lifted, *args: Any, **kwargs: Any) -> Lifted:
    def plain(values: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = func(values, *args, **kwargs)
        return made

    point, baseline = _wide(x.point), _wide(x.baseline)
    step = point - baseline
    close = step.abs() <= near
    middle = (point + baseline) / 2
    derivative: Any = torch.func.jvp(plain, (middle,), (torch.ones_like(middle),))[1]
    after, before = plain(point), plain(baseline)
    quotient = (after - before) / torch.where(close, 1.0, step)
    slope = torch.where(close, derivative, quotient).to(x.dtype)
    return Lifted.of(after.to(x.dtype), before.to(x.dtype), slope * x.parts)


def _power(func: Any, x: Lifted, exponent: Any) -> Any:
    """A whole power as products, and a half one as a root."""
    if exponent in (0.5, -0.5):
        return x.sqrt() if exponent > 0 else x.rsqrt()
    if exponent == -1:
        return x.reciprocal()
    if isinstance(exponent, Lifted) or exponent != int(exponent) or exponent < 1:
        raise ValueError(f"DeepLIFT has no rule for a power of {exponent}")
    made: Any = x
    for _ in range(int(exponent) - 1):
        made = made * x
    return made


def _quotient(func: Any, over: Any, under: Any) -> Any:
    """Of q = a / b the product's rule for a = q·b gives Δq = (Δa - ½(q + q°)·Δb) / ½(b + b°). (As a
    product with the reciprocal, parts are huge where b is small in one of the passes.)"""
    if func in _REVERSED:
        over, under = under, over
    if not isinstance(under, Lifted):
        return _multilinear(torch.true_divide, (over, under), {})
    ends = (over.point, over.baseline) if isinstance(over, Lifted) else (over, over)
    after, before = ends[0] / under.point, ends[1] / under.baseline
    middle, divisor = (after + before) / 2, (under.point + under.baseline) / 2

    def share(of_under: torch.Tensor, of_over: torch.Tensor | float = 0.0) -> torch.Tensor:
        return (of_over - middle * of_under) / divisor

    given = (under.parts, over.parts) if isinstance(over, Lifted) else (under.parts,)
    return Lifted.of(after, before, torch.func.vmap(share)(*given))


# Functions that are made of others.


def _softmax(
    func: Any,
    x: Lifted,
    dim: int = -1,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Lifted:
    """The exponential of log p = x - log Σ exp(x). The logarithm of the sum moves such that the
    probabilities' parts sum to nothing over a row, as their differences do. (By the rule for a
    quotient, parts overflow where the two passes' scores are far apart.)"""
    kind = dtype or x.dtype
    point, baseline = (_wide(one).log_softmax(dim) for one in (x.point, x.baseline))
    slope = _exponential_slope(point, baseline).nan_to_num(0.0)
    changes, axis = x.parts.to(slope.dtype), dim % x.ndim
    # The parts have an axis of their own before the others.
    moved = (slope * changes).sum(axis + 1, keepdim=True)
    whole = slope.sum(axis, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    shared = slope * (changes - moved / whole)
    return Lifted.of(point.exp().to(kind), baseline.exp().to(kind), shared.to(kind))


def _exponential_slope(point: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
    # Masked scores are minus infinity in both passes.
    same = point == baseline
    step = torch.where(same, 0.0, point - baseline)
    middle = torch.where(same, point, (point + baseline) / 2)
    half = step.clamp(-1, 1) / 2
    # sinh(h) / h; of small h by its series, to rounding.
    series = 1 + half**2 / 6 * (1 + half**2 / 20 * (1 + half**2 / 42))
    tiny = half.abs() < 0.05
    near = middle.exp() * torch.where(tiny, series, half.sinh() / torch.where(tiny, 1.0, half))
    far = (point.exp() - baseline.exp()) / torch.where(same, 1.0, step)
    return torch.where(step.abs() < 1, near, far)


def _layer_norm(
    func: Any,
    x: Lifted,
    shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    last = tuple(range(-len(shape), 0))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return _affine(_normalised(wide - wide.mean(last, True), last, eps).to(x.dtype), weight, bias)


def _rms_norm(
    func: Any,
    x: Lifted,
    shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Any:
    last = tuple(range(-len(shape), 0))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    small = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_normalised(wide, last, small).to(x.dtype), weight, None)


def _group_norm(
    func: Any,
    x: Lifted,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(x.shape[0], groups, -1)
    whole = _normalised(wide - wide.mean(-1, True), -1, eps).reshape(x.shape).to(x.dtype)
    per_channel = (-1, *[1] * (x.ndim - 2))
    return _affine(
        whole,
        None if weight is None else weight.reshape(per_channel),
        None if bias is None else bias.reshape(per_channel),
    )


def _normalised(x: Any, dims: int | tuple[int, ...], eps: float) -> Any:
    return x * ((x * x).mean(dims, True) + eps).rsqrt()


def _affine(x: Any, weight: torch.Tensor | None, bias: torch.Tensor | None) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _named(module: Any, *names: str) -> list[Any]:
    return [getattr(module, name) for name in names if hasattr(module, name)]


def _both(*names: str) -> list[Any]:
    return [*_named(torch, *names), *_named(torch.Tensor, *names)]


_REVERSED = frozenset(_named(torch.Tensor, "__rtruediv__", "__rdiv__"))
_RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_both("sigmoid", "tanh", "sin", "cos", "erf", "log1p", "expm1"), _smooth),
    **dict.fromkeys(
        _named(F, "silu", "gelu", "sigmoid", "tanh", "mish", "softplus", "elu"), _smooth
    ),
    **dict.fromkeys(
        [*_both("relu", "abs", "clamp", "clip"), *_named(F, "relu", "leaky_relu", "relu6")],
        _piecewise,
    ),
    **dict.fromkeys(_both("exp"), _by_slope(_exponential_slope)),
    **dict.fromkeys(_both("square"), _by_slope(lambda a, b: a + b)),
    **dict.fromkeys(_both("reciprocal"), _by_slope(lambda a, b: -1 / (a * b))),
    **dict.fromkeys(_both("sqrt"), _by_slope(lambda a, b: 1 / (a.sqrt() + b.sqrt()))),
    **dict.fromkeys(_both("rsqrt"), _by_slope(lambda a, b: -1 / (a * b.sqrt() + b * a.sqrt()))),
    **dict.fromkeys([*_both("pow"), torch.Tensor.__pow__], _power),
    **dict.fromkeys(
        [*_both("div", "divide", "true_divide"), torch.Tensor.__truediv__, *_REVERSED], _quotient
    ),
    torch.Tensor.__setitem__: _set,
    **dict.fromkeys([*_both("softmax"), F.softmax], _softmax),
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
}
