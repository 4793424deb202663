"""Jobs of the app: one at a time, in the order in which they were asked for."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from PIL import Image, ImageOps

from wordlight.attribution import registry
from wordlight.attribution.maps import AttributionMaps
from wordlight.backends.backend import Backend, MissingCapabilityError
from wordlight.backends.loading import load
from wordlight.backends.progress import listening
from wordlight.backends.trajectory import Trajectory
from wordlight.backends.vocabulary import unknown_words_message
from wordlight.comparisons.results.side_by_side import view

#: Most characters of a prompt, denoising steps, and methods of one job.
MOST_CHARACTERS, MOST_STEPS, MOST_METHODS = 2000, 200, 8
#: Most jobs that wait or run.
MOST_JOBS = 20


class JobCancelledError(Exception):
    """The job's user doesn't want it any more."""


class JobRefusedError(ValueError):
    """A job that can't be done as it was asked for."""


@dataclass(frozen=True)
class JobRequest:
    """A user's wishes for a job.

    Attributes:
        model: one of the app's models.
        methods: names of the registry.
        picture: explained in place of a drawn one, ``(height, width, 3)`` uint8.
        steps, guidance_scale: as the model recommends where None.
        threshold: at which the downloaded masks are cut.
    """

    model: str
    prompt: str
    methods: Sequence[str]
    negative_prompt: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    picture: Image.Image | None = None
    threshold: float = 0.4

    def check(self) -> None:
        """Raises JobRefusedError, saying what would be right."""
        if not self.prompt.strip():
            raise JobRefusedError(
                "the prompt is empty: say in words what to draw, or what the picture shows"
            )
        if max(len(self.prompt), len(self.negative_prompt or "")) > MOST_CHARACTERS:
            raise JobRefusedError(f"a prompt has at most {MOST_CHARACTERS} characters")
        if not 1 <= len(self.methods) <= MOST_METHODS:
            raise JobRefusedError(f"choose 1 to {MOST_METHODS} methods, not {len(self.methods)}")
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            raise JobRefusedError(f"the number of steps is 1 to {MOST_STEPS}, not {self.steps}")
        if self.seed < 0:
            raise JobRefusedError(f"a seed is 0 or more, not {self.seed}")


@dataclass(frozen=True)
class JobResult:
    """The results of a job: the viewer as HTML, files to download, and remarks."""

    viewer: str
    files: list[str]
    remarks: list[str]


@dataclass(eq=False)
class Job:
    """One job, and how far it is.

    Attributes:
        progress: the work in words, the amount done, and the total (None if unknown).
        made: its result, once it is done.
        error: why nothing did.
    """

    ask: JobRequest
    folder: Path
    progress: tuple[str, int, int | None] = ("waiting", 0, None)
    made: JobResult | None = None
    error: str | None = None
    done: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tell(self, what: str, amount: int, total: int | None) -> None:
        """Note the progress; raises JobCancelledError for a job that nobody wants any more."""
        if self.cancelled.is_set():
            raise JobCancelledError
        self.progress = (what, amount, total)


class JobQueue:
    """The app's models and its jobs.

    Args:
        models: names, folders or Hub ids that users can choose from.
        loading: a function that loads a model by its name.
    """

    def __init__(self, models: Sequence[str], loading: Callable[[str], Backend] = load) -> None:
        self.models = tuple(models)
        self._loading = loading
        self._loaded: dict[str, Backend] = {}
        self._line: list[Job] = []
        self._turn = threading.Condition()

    def start(self, ask: JobRequest, folder: Path) -> Job:
        """Begin a job; its files go to ``folder``.

        Raises JobRefusedError for one that can't be done, or while too many wait.
        """
        ask.check()
        if ask.model not in self.models:
            raise JobRefusedError(
                f"no model {ask.model!r} here; there are {', '.join(self.models)}"
            )
        for name in ask.methods:
            registry.get(name)
        job = Job(ask, folder)
        with self._turn:
            if len(self._line) >= MOST_JOBS:
                raise JobRefusedError(f"{MOST_JOBS} jobs are waiting already: try again later")
            self._line.append(job)
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def cancel(self, job: Job) -> None:
        """End a job at its next step, or before it has begun."""
        with self._turn:
            job.cancelled.set()
            self._turn.notify_all()

    def waiting_before(self, job: Job) -> int:
        """Return the number of jobs that come before this one."""
        with self._turn:
            return self._line.index(job) if job in self._line else 0

    def _work(self, job: Job) -> None:
        try:
            with self._turn:
                self._turn.wait_for(lambda: self._line[0] is job or job.cancelled.is_set())
            with listening(job.tell):
                job.made = self._do(job)
        except JobCancelledError:
            job.error = "Cancelled."
        except Exception as error:
            job.error = _message(error)
        finally:
            with self._turn:
                self._line.remove(job)
                self._turn.notify_all()
            job.done.set()

    def _do(self, job: Job) -> JobResult:
        ask = job.ask
        job.tell(f"loading {ask.model}", 0, None)
        backend = self._backend(ask.model)
        attributors = [registry.construct(backend, name, {}) for name in ask.methods]
        job.tell("drawing" if ask.picture is None else "noising the picture", 0, None)
        trajectory = _trajectory(backend, ask)
        answers: list[AttributionMaps] = []
        for attributor in attributors:
            job.tell(attributor.name, 0, None)
            with listening(partial(_of_method, job, attributor.name)):
                answers.append(attributor.attribute(trajectory))
        job.tell("writing", 0, None)
        return _written(job, trajectory, answers)

    def _backend(self, name: str) -> Backend:
        if name not in self._loaded:
            # Two large models may not fit: the one before goes first.
            self._loaded.clear()
            self._loaded[name] = self._loading(name)
        return self._loaded[name]


def _of_method(job: Job, method: str, what: str, done: int, total: int | None) -> None:
    job.tell(f"{method}: {what}", done, total)


def _trajectory(backend: Backend, ask: JobRequest) -> Trajectory:
    if ask.picture is None:
        return backend.sample(
            ask.prompt,
            seed=ask.seed,
            steps=ask.steps,
            guidance_scale=ask.guidance_scale,
            negative_prompt=ask.negative_prompt or None,
        )
    facts = backend.sampling
    upright = ImageOps.exif_transpose(ask.picture).convert("RGB")
    fitted = ImageOps.fit(upright, (facts.width, facts.height), Image.Resampling.LANCZOS)
    (made,) = backend.invert([np.asarray(fitted)], [ask.prompt], seed=ask.seed, steps=ask.steps)
    return made


def _written(job: Job, trajectory: Trajectory, answers: Sequence[AttributionMaps]) -> JobResult:
    """Write page, maps and masks, and give what is shown of them."""
    ask, folder = job.ask, job.folder
    folder.mkdir(parents=True, exist_ok=True)
    viewer = view(answers)
    files = [folder / "image.png", viewer.to_html(folder / "wordlight.html")]
    Image.fromarray(trajectory.image).save(files[0])
    masks = folder / "masks.zip"
    for maps in answers:
        files.append(folder / f"maps-{maps.provenance.method}.safetensors")
        maps.save(files[-1])
        with ZipFile(masks, "a", ZIP_DEFLATED) as archive:
            for number, word in enumerate(maps.words, start=1):
                mask = Image.fromarray(maps.at(word).mask(ask.threshold))
                with archive.open(f"{maps.provenance.method}/{number:02d}.png", "w") as file:
                    mask.save(file, "PNG")
    remarks = [unknown_words_message(ask.model, ask.prompt) or ""]
    if ask.picture is not None and trajectory.image.shape[:2] != ask.picture.size[::-1]:
        height, width = trajectory.image.shape[:2]
        remarks.append(f"the picture was cut and scaled to {width}×{height}, the model's own size")
    return JobResult(
        viewer._repr_html_(), [str(file) for file in (*files, masks)], list(filter(None, remarks))
    )


def _message(error: Exception) -> str:
    """Return the message of an error for a user; what nobody foresaw is logged with its
    traceback."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "Memory ran out: ask for fewer methods or steps, or a smaller model."
    if isinstance(error, ValueError | KeyError | MissingCapabilityError | OSError):
        return text[:1].upper() + text[1:]
    with suppress(OSError):
        traceback.print_exception(error)
    return f"The job failed ({type(error).__name__}: {text[:300]}). The app goes on."
