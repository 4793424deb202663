"""``explain FOLDER``: the embedded model on JAX, where no PyTorch is installed; ``compare FOLDER``:
what came of it against PyTorch's own, where both are."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wordlight.attribution import DAAM, AttributionMaps, InputXGradient, Occlusion
from wordlight.backends import ModelLoadError, Trajectory, load, trace

PROMPT = "a red circle and a blue square"
#: Attention, forward-mode products, and differences of predictions.
METHODS = (DAAM, InputXGradient, Occlusion)
STEPS = 2
#: Float32 rounding, relative to the largest value: of latents through a guided run, of maps of
#: attention (the softmax of a trained model enlarges it: PyTorch's are 6e-6 from those of float64
#: here, and JAX's 1.6e-5), and of derivatives and differences.
LATENTS, ATTENTION, PUSHES = 1e-5, 1e-4, 1e-3


def explain(folder: Path) -> None:
    for package in ("torch", "diffusers", "accelerate"):
        assert importlib.util.find_spec(package) is None, f"{package} is installed here"
    backend = load("scenes")
    assert backend.framework == "flax", backend
    with trace(backend) as traced:
        run = backend.sample(PROMPT, seed=1, steps=5)
    assert run.image.shape == (64, 64, 3)
    assert run.image.std() > 1, "the image is blank"
    folder.mkdir()
    run.save(folder / "run.safetensors")
    DAAM.from_trace(traced).save(folder / "streamed.safetensors")
    for method in METHODS:
        method(backend, steps=STEPS).attribute(run).save(folder / f"{method.name}.safetensors")
    assert "torch" not in sys.modules
    for ask in (lambda: load("scenes", framework="torch"), lambda: trace(object())):
        assert "pip install 'wordlight[torch]'" in refusal(ask), refusal(ask)


def refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except ModelLoadError as error:
        return str(error)
    return "it works without PyTorch"


def compare(folder: Path) -> None:
    backend = load("scenes", device="cpu")
    run = Trajectory.load(folder / "run.safetensors")
    assert (run.framework, run.model_id) == ("flax", "scenes")
    assert run.revision == backend.revision, "the wheel holds another model than the checkout"
    with trace(backend) as traced:
        own = backend.sample(PROMPT, seed=1, steps=5)
    far = {"latents": (apart(run.latents, own.latents), LATENTS)}
    maps = AttributionMaps.load(folder / "streamed.safetensors")
    far["daam, streamed"] = (apart(maps.data, DAAM.from_trace(traced).data), ATTENTION)
    for method in METHODS:
        maps = AttributionMaps.load(folder / f"{method.name}.safetensors")
        wanted = method(backend, steps=STEPS).attribute(run)
        tolerance = ATTENTION if method is DAAM else PUSHES
        far[method.name] = (apart(maps.data, wanted.data), tolerance)
    for what, (distance, tolerance) in far.items():
        assert distance <= tolerance, f"{what}: {distance:.1e} from PyTorch's, over {tolerance}"
    told = ", ".join(f"{what} {distance:.1e}" for what, (distance, _) in far.items())
    print(f"without PyTorch, and as with it: {told} apart, relative to the largest value")


def apart(ours: object, theirs: object) -> float:
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert one.shape == other.shape, (one.shape, other.shape)
    return float(np.abs(one - other).max() / np.abs(other).max())


if __name__ == "__main__":
    {"explain": explain, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
