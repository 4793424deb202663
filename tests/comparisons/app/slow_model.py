"""A toy model that takes its time, and the app serving it: ``python slow_model.py``."""

import time
from dataclasses import replace

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.progress import tell


class SlowModel(ToyModel):
    """Tells its progress as a real one does, and waits at each step.

    "memory" in a prompt has it run out of memory, "fault" meet a fault of its own.
    """

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.pause = pause

    def _sample(self, request):
        prompt = request.prompts[0]
        if "memory" in prompt:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if "fault" in prompt:
            raise ZeroDivisionError("division by zero")
        for step in range(request.steps):
            tell("drawing", step + 1, request.steps)
            time.sleep(self.pause)
        return super()._sample(replace(request, steps=min(4, request.steps)))


if __name__ == "__main__":
    from wordlight.comparisons.app.jobs import JobQueue
    from wordlight.comparisons.cli.app import serve

    serve(JobQueue(["slow"], lambda name: SlowModel(0.3)), host="127.0.0.1", port=0)
