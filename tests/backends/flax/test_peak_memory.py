"""What a device says of its memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wordlight.backends.flax.backend import FlaxBackend


class Device:
    """One that tells what a test has it tell."""

    def __init__(self) -> None:
        self.told: dict[str, Any] | None = None

    def memory_stats(self) -> dict[str, Any] | None:
        return self.told


def test_peaks(ours: FlaxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ours.peak_bytes() is None  # a CPU doesn't tell
    device = Device()
    monkeypatch.setattr(ours, "_peak_before", 0)
    monkeypatch.setattr(ours, "_place", SimpleNamespace(device=device))
    for told in (None, {}, {"bytes_in_use": 3}):
        device.told = told
        ours.reset_peak_bytes()
        assert ours.peak_bytes() is None
    device.told = {"peak_bytes_in_use": 1000}
    assert ours.peak_bytes() == 1000
    # JAX never forgets: after a reset only a higher peak is known to be new.
    ours.reset_peak_bytes()
    assert ours.peak_bytes() is None
    device.told = {"peak_bytes_in_use": 2000}
    assert ours.peak_bytes() == 2000
