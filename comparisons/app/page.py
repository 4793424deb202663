"""The app's page, in Gradio."""

from __future__ import annotations

import html
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from wordlight.attribution import registry
from wordlight.comparisons.app.jobs import MOST_STEPS, Job, JobQueue, JobRefusedError, JobRequest

TITLE = "wordlight"
EXAMPLE = "a red circle and a blue square on a black background"
#: Seconds between two looks at a job's progress.
_LOOK = 0.25
_ABOUT = (
    "# wordlight\n"
    "Which pixels does each word of a prompt light up? Hover a word to see its map, click to pin "
    "it; click a pixel to see which words light it up."
)
_FONTS = ("system-ui", "sans-serif")


def theme() -> gr.themes.Base:
    """A theme without fonts from elsewhere."""
    return gr.themes.Soft(font=_FONTS, font_mono=("ui-monospace", "monospace"))


def build_app(workshop: JobQueue, folder: Path | None = None) -> gr.Blocks:
    """Return the app, ready for ``launch``.

    Args:
        workshop: the queue that does the jobs.
        folder: the folder for jobs' files while they run; a temporary one where None.
    """
    root = Path(tempfile.mkdtemp(prefix="wordlight-app-")) if folder is None else folder
    desk = _PageJobs(workshop, root)
    methods = [name for name, kind in registry.available().items() if kind.family != "control"]
    # Files of a day ago go, once an hour.
    app = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400))
    with app:
        gr.Markdown(_ABOUT)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, elem_id="prompt")
                chosen = gr.Dropdown(
                    methods, value=["daam"], multiselect=True, label="Methods", elem_id="methods"
                )
                with gr.Row():
                    model = gr.Dropdown(
                        list(workshop.models), value=workshop.models[0], label="Model"
                    )
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                with gr.Accordion("More", open=False):
                    negative = gr.Textbox("", label="Negative prompt")
                    with gr.Row():
                        steps = gr.Number(
                            None,
                            label="Steps (empty: the model's own)",
                            precision=0,
                            minimum=1,
                            maximum=MOST_STEPS,
                        )
                        guidance = gr.Number(None, label="Guidance scale (empty: its own)")
                    threshold = gr.Slider(0.05, 0.95, 0.4, label="Threshold of the masks")
                    picture = gr.Image(
                        type="pil",
                        label="A picture to explain, in place of a drawn one",
                        sources=["upload", "clipboard"],
                    )
                with gr.Row():
                    explain = gr.Button("Explain", variant="primary", elem_id="explain")
                    cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
                status = gr.HTML(_status("Ready."), elem_id="status")
                files = gr.File(
                    label="Download",
                    file_count="multiple",
                    visible=False,
                    interactive=False,
                    elem_id="files",
                )
            with gr.Column(scale=2, min_width=480):
                viewer = gr.HTML(elem_id="viewer")
        asked = [model, prompt, chosen, negative, seed, steps, guidance, picture, threshold]
        gr.on(
            [explain.click, prompt.submit],
            desk.explain,
            inputs=asked,
            outputs=[status, viewer, files, explain, cancel],
            # Jobs stand in a line of our own, from which one can step out.
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        cancel.click(
            desk.cancel,
            outputs=[status],
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        app.unload(desk.leave)
    return app


class _PageJobs:
    """The users' jobs, one for each open page."""

    def __init__(self, workshop: JobQueue, root: Path) -> None:
        self._workshop, self._root = workshop, root
        self._jobs: dict[str, Job] = {}

    def explain(
        self,
        model: str,
        prompt: str,
        methods: list[str],
        negative: str,
        seed: float | None,
        steps: float | None,
        guidance: float | None,
        picture: Image.Image | None,
        threshold: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Do a job, and yield what the page shows meanwhile and at the end."""
        user = str(request.session_hash)
        folder = Path(tempfile.mkdtemp(dir=self._root))
        job = None
        try:
            ask = JobRequest(
                model=model,
                prompt=prompt or "",
                methods=methods or [],
                negative_prompt=negative,
                seed=int(seed or 0),
                steps=None if steps is None else int(steps),
                guidance_scale=guidance,
                picture=picture,
                threshold=threshold,
            )
            if user in self._jobs:
                raise JobRefusedError("your last job is still running: cancel it first")
            job = self._jobs[user] = self._workshop.start(ask, folder)
            while not job.done.wait(_LOOK):
                yield _showing(self._progress(job), busy=True)
            if job.made is None:
                yield _showing(_status(job.error or "", bad=job.error != "Cancelled."))
            else:
                text = " ".join(["Done.", *(f"Note: {remark}." for remark in job.made.remarks)])
                yield (
                    _status(text),
                    job.made.viewer,
                    gr.update(value=job.made.files, visible=True),
                    *_buttons(busy=False),
                )
        except (ValueError, KeyError) as error:
            text = str(error.args[0]) if error.args else str(error)
            yield _showing(_status(text[:1].upper() + text[1:], bad=True))
        finally:
            if job is not None:
                self._workshop.cancel(job)  # for a page that was closed; else it is done
                self._jobs.pop(user, None)
                job.done.wait()
            # Gradio has copied what it serves.
            shutil.rmtree(folder, ignore_errors=True)

    def cancel(self, request: gr.Request) -> str:
        """End the user's job at its next step."""
        job = self._jobs.get(str(request.session_hash))
        if job is None:
            return _status("There is nothing to cancel.")
        self._workshop.cancel(job)
        return _status("Cancelling …")

    def leave(self, request: gr.Request) -> None:
        """End the job of a page that was closed."""
        self.cancel(request)

    def _progress(self, job: Job) -> str:
        if before := self._workshop.waiting_before(job):
            return _status(f"Waiting: {before} before you.")
        what, done, total = job.progress
        amount = f", {done} of {total}" if total else ""
        return _status(f"{what[:1].upper()}{what[1:]}{amount} …", share=(done, total))


def _showing(status: str, *, busy: bool = False) -> tuple[Any, ...]:
    return (status, gr.skip(), gr.skip(), *_buttons(busy=busy))


def _buttons(*, busy: bool) -> tuple[Any, Any]:
    return gr.update(interactive=not busy), gr.update(interactive=busy)


def _status(text: str, *, bad: bool = False, share: tuple[int, int | None] | None = None) -> str:
    bar = ""
    if share is not None:
        done, total = share
        value = f' value="{done}" max="{total}"' if total else ""
        bar = f'<progress style="width: 100%"{value}></progress>'
    role, mark = ("alert", "⚠ ") if bad else ("status", "")
    return f'<div role="{role}" aria-live="polite">{mark}{html.escape(text)}{bar}</div>'
