"""Observes calls of a pipeline: their beginning, arguments and results.

The class's ``__call__`` is wrapped while anyone listens to a pipeline of that class; calls of other
pipelines go straight through.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from diffusers import DiffusionPipeline

_LOCK = threading.RLock()
_LISTENERS: dict[type, list[Listener]] = {}
_UNHEARD = threading.local()
_WRAPPERS: dict[type, tuple[Any, Any]] = {}


class Listener(Protocol):
    """A listener to a pipeline's calls; none of these may raise."""

    pipe: Any

    def call_began(self, arguments: dict[str, Any]) -> None:
        """A call begins, with these arguments, defaults included."""

    def call_ended(self, result: Any, error: BaseException | None) -> None:
        """The call ended, with a result or an exception."""


def listen(listener: Listener) -> None:
    """Tell a listener of its pipeline's calls from now on."""
    kind = type(listener.pipe)
    with _LOCK:
        if any(one is listener for one in _LISTENERS.get(kind, [])):
            raise ValueError("this trace listens already: it can't be entered again before it ends")
        if not _LISTENERS.get(kind):
            wrapper = _wrapper(kind, kind.__call__)
            _WRAPPERS[kind] = (wrapper, vars(kind).get("__call__"))
            kind.__call__ = wrapper
        _LISTENERS[kind] = [*_LISTENERS.get(kind, []), listener]


def remove_listener(listener: Listener) -> None:
    """Tell it no longer; does nothing for one that isn't told."""
    kind = type(listener.pipe)
    with _LOCK:
        before = _LISTENERS.get(kind, [])
        if not any(one is listener for one in before):
            return
        _LISTENERS[kind] = [one for one in before if one is not listener]
        if _LISTENERS[kind]:
            return
        del _LISTENERS[kind]
        wrapper, own = _WRAPPERS.pop(kind)
        if vars(kind).get("__call__") is wrapper:
            if own is None:
                del kind.__call__
            else:
                kind.__call__ = own


@contextmanager
def without_listeners() -> Iterator[None]:
    """Calls of this thread's pipelines that no listener is told of."""
    before = getattr(_UNHEARD, "on", False)
    _UNHEARD.on = True
    try:
        yield
    finally:
        _UNHEARD.on = before


def _wrapper(kind: type, call: Callable[..., Any]) -> Callable[..., Any]:
    signature = _signature(kind, call)

    @functools.wraps(call)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = [one for one in _LISTENERS.get(kind, ()) if one.pipe is self]
        if not listeners or getattr(_UNHEARD, "on", False):
            return call(self, *args, **kwargs)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            # The call says so itself, better.
            return call(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name)
        for listener in listeners:
            listener.call_began(dict(arguments))
        try:
            result = call(self, *args, **kwargs)
        except BaseException as error:
            for listener in reversed(listeners):
                listener.call_ended(None, error)
            raise
        for listener in reversed(listeners):
            listener.call_ended(result, None)
        return result

    return wrapper


def _signature(kind: type, call: Callable[..., Any]) -> inspect.Signature:
    """The signature of a pipeline's call; of one that hands on ``*args, **kwargs`` alone, that of
    the class above."""
    found = inspect.signature(call)
    handed_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    for above in kind.__mro__[1:]:
        own = [parameter.kind for parameter in list(found.parameters.values())[1:]]
        if set(own) != handed_on:
            break
        if "__call__" in vars(above):
            found = inspect.signature(vars(above)["__call__"])
    return found


def running_pipeline() -> Any:
    """The innermost pipeline that is running in this thread, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_code.co_varnames
        if names[:1] == ("self",):
            owner = frame.f_locals.get("self")
            if isinstance(owner, DiffusionPipeline):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None
