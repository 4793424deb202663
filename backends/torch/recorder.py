"""Records what a running diffusers pipeline goes through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.sampling import pixels_of
from wordlight.backends.torch import pipeline_calls
from wordlight.backends.torch.accumulator import AttentionAccumulator
from wordlight.backends.torch.call_arguments import (
    NOISE_LEVEL,
    CallArguments,
    NotRecordableError,
    same_call,
)
from wordlight.backends.torch.compiled import as_written
from wordlight.backends.torch.hooks import hooks_on, n_hooks
from wordlight.backends.torch.model import Model
from wordlight.backends.torch.module_tree import parts_of
from wordlight.backends.torch.noise import sigma_now
from wordlight.backends.torch.taps import AttentionTap
from wordlight.backends.torch.weights import Watched

#: The most that the inputs of a run that change from step to step may take on the device: a
#: ControlNet's residuals of Stable Diffusion 1.5 at 512 pixels take 48 MiB a step in float32.
MOST_HELD = 512 * 2**20
#: What a call is told that is not of its text alone, beside all that begins with "prompt" or says
#: something of the negative prompt.
_NOT_OF_TEXT = (
    "self pooled_prompt_embeds latents generator output_type return_dict "
    "num_inference_steps num_images_per_prompt timesteps sigmas callback callback_steps "
    "callback_on_step_end callback_on_step_end_tensor_inputs "
    "ip_adapter_image ip_adapter_image_embeds"
).split()
_SWITCHED = "weights or adapters of the denoiser were changed between steps"


@dataclass
class Call:
    """One call of the pipeline: all arrays are of the conditional rows, one an image.

    Attributes:
        arguments: the arguments of the pipeline's call.
        prompts, negative_prompts, images_per_prompt: the words, where it was given words.
        latents, timesteps: the denoiser's inputs at each of its calls.
        embeddings, negative_embeddings: the text's, at the first.
        accumulator, negative_accumulator: of the attention to either.
        moved: whether a later call was told other embeddings; tensors are read when it is asked.
        added: its further inputs at the first call, and ``step_added`` at each, where that
            changed.
        negative_added: those of the negative prompt's rows.
        rows: the rows of all of the denoiser's calls.
        hooks: the users' own hooks on the denoiser (``hooks_on``).
        predictions: what the denoiser gave at the first step and, if there is another, the last.
        fault: why the call can't be explained, or None.
        not_replayable: why a replay would be another run, or None.
        output: the pipeline's result: images, or latents.
    """

    accumulator: AttentionAccumulator | None
    arguments: dict[str, Any] = field(default_factory=dict)
    prompts: list[str] | None = None
    negative_prompts: list[str] | None = None
    images_per_prompt: int = 1
    guidance_scale: float = 1.0
    latents: list[torch.Tensor] = field(default_factory=list)
    timesteps: list[Any] = field(default_factory=list)
    embeddings: torch.Tensor | None = None
    negative_embeddings: torch.Tensor | None = None
    negative_added: dict[str, Any] = field(default_factory=dict)
    negative_accumulator: AttentionAccumulator | None = None
    moved: list[torch.Tensor] = field(default_factory=list)
    added: dict[str, Any] = field(default_factory=dict)
    step_added: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    rows: int = 0
    fault: str | None = None
    not_replayable: str | None = None
    output: Any = None
    finished: bool = False
    cancelled: bool = False
    empty_embeddings: torch.Tensor | None = None
    empty_added: dict[str, torch.Tensor] = field(default_factory=dict)
    weights: str | None = None
    hooks: tuple[str, ...] = ()
    predictions: list[torch.Tensor] = field(default_factory=list)
    _given: Any = None
    _given_version: Any = None
    _last: dict[str, Any] = field(default_factory=dict)
    _versions: dict[str, Any] = field(default_factory=dict)
    _held: int = 0

    @property
    def count(self) -> int | None:
        """The number of images that were asked for, as far as that can be told from the
        arguments."""
        given = self.arguments.get("prompt_embeds")
        if self.prompts is not None:
            return len(self.prompts) * self.images_per_prompt
        if isinstance(given, torch.Tensor):
            return int(given.shape[0]) * self.images_per_prompt
        return None

    @property
    def encoding_options(self) -> dict[str, Any]:
        """The arguments of the call that may matter for its text."""
        told = {
            name: value
            for name, value in self.arguments.items()
            if value is not None
            and name not in _NOT_OF_TEXT
            and not name.startswith("prompt")
            and "negative" not in name
        }
        scale = (told.get("cross_attention_kwargs") or {}).get("scale")
        return told if scale is None else {**told, "lora_scale": scale}

    @property
    def given_embeddings(self) -> bool:
        """True if the pipeline was given embeddings of its text."""
        return any(
            value is not None and name.startswith("prompt_embeds") and "mask" not in name
            for name, value in self.arguments.items()
        )

    @property
    def words_changed(self) -> bool:
        """True if the text's embeddings changed between steps."""
        return any(bool(changed) for changed in self.moved)

    def add_step(self, told: dict[str, Any], rows: slice, count: int) -> None:
        """Take in what the denoiser was told besides latents, time and text."""
        if self._last and set(told) != set(self._last):
            self.not_replayable = "the denoiser was told other things at different steps"
        for name, value in told.items():
            self._add(name, value, rows, count)
        self._last = told
        self._versions = {name: version_of(value) for name, value in told.items()}

    def add_negative(
        self, embeddings: torch.Tensor, told: dict[str, Any], rows: slice, count: int
    ) -> None:
        """Take in what the negative prompt's rows were told at the first call."""
        self.negative_embeddings = embeddings
        for name, value in told.items():
            if not isinstance(value, torch.Tensor):
                self.negative_added[f"{name}="] = value
            elif value.ndim > 0 and value.shape[0] == count and not name.endswith("*"):
                self.negative_added[name] = value.detach()[rows].clone()

    def _add(self, name: str, value: Any, rows: slice, count: int) -> None:
        if not isinstance(value, torch.Tensor):
            if name in self._last and self._last[name] != value:
                self.not_replayable = f"{name.strip('+')} changed between steps"
            self.added[f"{name}="] = value
            return
        before, raw = self._last.get(name), name
        of_rows = value.ndim > 0 and value.shape[0] == count and not name.endswith("*")
        name = name if of_rows or name.endswith("*") else f"{name}*"
        unchanged = before is not None and tensors_equal(before, value)
        unchanged = unchanged and self._versions[raw] == version_of(value)
        own = value.detach()[rows] if of_rows else value.detach()
        if name not in self.added:
            self.added[name] = own.clone()
        elif not unchanged or name in self.step_added:
            steps = self.step_added.setdefault(name, [self.added[name]] * (len(self.latents) - 1))
            own = steps[-1] if unchanged else own.clone()
            steps.append(own)
            self._held += 0 if unchanged else own.numel() * own.element_size()
            if self._held > MOST_HELD:
                self.step_added.clear()
                self.not_replayable = (
                    f"{name.strip('+*')} changed at each step, and would take more than "
                    f"{MOST_HELD // 2**20} MiB to keep"
                )


def version_of(value: Any) -> Any:
    """Return how often a tensor, or each of a list, was changed in place: another number than
    before is another content. None where a tensor doesn't tell, as none of inference mode does."""
    if isinstance(value, (list, tuple)):
        return tuple(map(version_of, value))
    if not isinstance(value, torch.Tensor) or value.is_inference():
        return None
    return value._version


def tensors_equal(one: Any, other: Any) -> bool:
    """Return whether two tensors, or lists of them, are the same, or equal; only large ones are
    looked at, which waits for the device."""
    if one is other:
        return True
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(tensors_equal, one, other))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return not one.is_inference() and one._version == other._version
    return one.numel() >= 2**18 and bool(torch.equal(one, other))


class PipelineRecorder:
    """Listens to the calls of one pipeline; a context manager that leaves nothing behind.

    The pipeline's class tells of its calls; hooks are on the denoiser for the length of a call.
    Passes of the denoiser for another pipeline, or in another thread, are none of it. Whatever goes
    wrong in listening is noted in ``Call.fault``, and never raised in the pipeline's call.

    Args:
        pipe: the pipeline.
        query: the attention that is averaged, if any.
        finish: called with each whole call when it ends, for what must be asked of the pipeline as
            it is then.
        negative: whether the attention to the negative prompt is averaged too.

    Raises:
        ValueError: a pipeline whose denoiser is of no known family, or a query that it has no
            layers for (on entering).
    """

    def __init__(
        self,
        pipe: Any,
        query: AttentionQuery | None,
        finish: Callable[[Call], None] | None = None,
        *,
        negative: bool = False,
    ) -> None:
        self.pipe = pipe
        self._negative = negative
        self.calls: list[Call] = []
        self._query = query
        self._finish = finish
        self._running: list[_Running] = []

    def __enter__(self) -> PipelineRecorder:
        model = Model.of(self.pipe)
        if self._query is not None:
            AttentionTap(model, self._query, _ignore_attention)
        pipeline_calls.listen(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Listen no longer."""
        pipeline_calls.remove_listener(self)
        while self._running:
            self._running.pop().close()

    def call_began(self, arguments: dict[str, Any]) -> None:
        call = Call(None, arguments)
        self.calls.append(call)
        try:
            if self._query is not None:
                call.accumulator = AttentionAccumulator(self._query)
                call.negative_accumulator = (
                    AttentionAccumulator(self._query) if self._negative else None
                )
            running = _Running(self.pipe, call, self._query, self._is_innermost)
            self._running.append(running)
            running.open()
        except Exception as fault:
            call.fault = call.fault or _told_of(fault)

    def _here(self) -> list[_Running]:
        return [one for one in self._running if one.thread == threading.get_ident()]

    def _is_innermost(self, running: _Running) -> bool:
        return self._here()[-1:] == [running]

    def call_ended(self, result: Any, error: BaseException | None) -> None:
        if not (mine := self._here()):
            return
        running = mine[-1]
        call = running.call
        call.cancelled, call.finished = error is not None, error is None
        try:
            # Where this fails it is closed once more at the block's end.
            running.close()
            self._running.remove(running)
            if error is not None:
                _note_on_clip_skip(call.arguments, error)
                return
            call.output = result
            if self._finish is not None and call.latents and call.fault is None:
                self._finish(call)
        except Exception as fault:
            call.fault = call.fault or _told_of(fault)


def _note_on_clip_skip(arguments: Mapping[str, Any], error: BaseException) -> None:
    """Add to diffusers' own error what helps: its Stable Diffusion pipelines look for the layer
    that ``clip_skip`` asks for behind a name that transformers has given up."""
    lacks = isinstance(error, AttributeError) and "'text_model'" in str(error)
    if lacks and arguments.get("clip_skip") is not None:
        error.add_note(
            f"diffusers {diffusers.__version__} looks for CLIPTextModel.text_model where clip_skip "
            f"is asked for, which transformers {transformers.__version__} doesn't have (nor any "
            "from 5.6 on, which wordlight needs). Before the call, say that the encoder is its own "
            "text model: vars(pipe.text_encoder)['text_model'] = pipe.text_encoder"
        )


def _stacked(texts: Any, rows: slice) -> torch.Tensor:
    """Some rows' embeddings ``(rows, positions, channels)``, of their own memory."""
    if isinstance(texts, torch.Tensor):
        return texts[rows].detach().clone()
    own = texts[rows]
    if not _all_equal(own):
        raise ValueError(
            "the prompts of one call have different numbers of tokens, which this model takes one "
            "by one: call the pipeline once a prompt"
        )
    return torch.stack([one.detach() for one in own])


def _all_equal(texts: Any) -> bool:
    return isinstance(texts, torch.Tensor) or len({len(one) for one in texts}) == 1


def _ignore_attention(*_: object) -> None:
    """Receives attention that nobody wants."""


def _told_of(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


class _Running:
    """One call of the pipeline while it runs."""

    def __init__(
        self,
        pipe: Any,
        call: Call,
        query: AttentionQuery | None,
        is_innermost: Callable[[_Running], bool],
    ) -> None:
        self.pipe, self.call = pipe, call
        self.thread = threading.get_ident()
        self._query, self._is_innermost = query, is_innermost
        self._model: Model | None = None
        self._tap: AttentionTap | None = None
        self._stack = ExitStack()
        self._listening = False
        self._latents: Any = None
        self._recorded_call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        #: The prompt's rows of the pass that is listened to; None where it has none.
        self._prompts_rows: slice | None = None
        #: The denoiser's parts, and what is on them at the first step.
        self._parts: list[torch.nn.Module] = []
        self._n_hooks = 0
        self._watched: Watched | None = None
        #: The attention modules that norm queries and keys, with what computed them in the run.
        self._processors: list[tuple[Any, Any]] = []
        #: Whose attention the parts of the rows that the tap shows are.
        self._receivers: list[tuple[AttentionAccumulator, slice]] = []

    def open(self) -> None:
        """Read the arguments and put the hooks in place."""
        try:
            self._model = Model.of(self.pipe)
            self._read_arguments(self._model)
            self._stack.enter_context(as_written(self._model.whole))
            if self._query is not None:
                self._tap = AttentionTap(
                    self._model, self._query, self._receive, on_error=self._fail
                )
                # Twice, since an interrupt may come amidst the first.
                self._stack.callback(self._tap.remove)
                self._stack.callback(self._tap.remove)
                self._tap.install()
            for module in self._model.modules:
                before = module.register_forward_pre_hook(self._before, with_kwargs=True)
                self._stack.callback(before.remove)
                after = module.register_forward_hook(
                    self._after, with_kwargs=True, always_call=True
                )
                self._stack.callback(after.remove)
        except Exception as error:
            self._fail(error)
            self._stack.close()

    def close(self) -> None:
        """Take every hook away."""
        self._listening = False
        self._stack.close()
        if self._model is not None and self._parts:
            now = [part for module in self._model.modules for part in parts_of(module)]
            if list(map(id, now)) != list(map(id, self._parts)):
                self.call.not_replayable = _SWITCHED
            self._parts = []
        if any(part.processor is not processor for part, processor in self._processors):
            self.call.not_replayable = (
                "the attention processors that the model had during the run, such as those of "
                "perturbed-attention guidance, leave out the norms of queries and keys that its "
                "own have"
            )
        self._processors = []

    def _fail(self, error: Exception) -> None:
        self.call.fault = self.call.fault or _told_of(error)

    def _read_arguments(self, model: Model) -> None:
        call, arguments = self.call, self.call.arguments
        for name, value in model.family.as_given(self.pipe).items():
            if arguments.get(name) != value and arguments.get("prompt") is not None:
                raise ValueError(
                    "the pipeline writes the prompt anew, so that its words aren't those that were "
                    f"given: call it with {name}={value}"
                )
        if (why := model.family.refused(arguments)) is not None:
            raise ValueError(why)
        words = model.family.words
        call.prompts = _as_list(arguments.get(words) or arguments.get("prompt"))
        negative = _as_list(arguments.get(f"negative_{words}") or arguments.get("negative_prompt"))
        if negative is not None and len(negative) == 1:
            negative = negative * len(call.prompts or [])
        call.negative_prompts = negative
        per_prompt = (arguments.get(f"num_{what}_per_prompt") for what in ("images", "videos"))
        call.images_per_prompt = int(next(filter(None, per_prompt), 1))
        if arguments.get("padding_mask_crop") is not None:
            raise ValueError(
                "the pipeline draws a crop and pastes it into the picture (padding_mask_crop), so "
                "that maps would be of the crop: leave padding_mask_crop out"
            )

    def _before(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> None:
        # Hooks are of a module, and other pipelines and threads may use it at the same time.
        if threading.get_ident() != self.thread or kwargs is None or self.call.fault:
            return
        try:
            if pipeline_calls.running_pipeline() is self.pipe and self._is_innermost(self):
                self._recorded_call = (args, kwargs)
                self._record(module, args, kwargs)
        except Exception as error:
            self._fail(error)

    def _after(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if threading.get_ident() != self.thread or not self._listening:
            return
        self._listening = False
        try:
            if not same_call((args, kwargs), self._recorded_call):
                self._note_changes(args, kwargs)
            if self._prompts_rows is not None and output is not None:
                self._keep_prediction(module, output, self._prompts_rows)
            if self._tap is not None:
                self._tap.end()
        except Exception as error:
            self._fail(error)

    def _note_changes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that a hook changed the arguments of a call after they were recorded."""
        assert self._model is not None
        self.call.not_replayable = "a hook changed what the denoiser was called with"
        text = self._model.family.text
        taken, recorded = (
            self._model.arguments_by_name(*one)[text]
            for one in ((args, kwargs), self._recorded_call)
        )
        if taken is not recorded:
            self.call.moved.append(torch.tensor(True))

    def _keep_prediction(self, module: torch.nn.Module, output: Any, rows: slice) -> None:
        assert self._model is not None
        given = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        told = self._model.arguments_by_name(*self._recorded_call)
        prediction = self._model.family.read(module, given, told)
        self.call.predictions[1:] = [prediction[rows].detach().clone()]

    def _look_at_parts(self, modules: Sequence[torch.nn.Module]) -> None:
        """Note the hooks and adapters at the first step, and whether they are others at a later
        one."""
        call = self.call
        if not self._parts:
            self._parts = [part for module in modules for part in parts_of(module)]
            self._n_hooks, call.hooks = n_hooks(self._parts), hooks_on(modules)
            self._watched = Watched(self._parts)
            return
        if n_hooks(self._parts) != self._n_hooks and hooks_on(modules) != call.hooks:
            call.not_replayable = "hooks were put on the denoiser, or taken away, between steps"
        assert self._watched is not None
        if self._watched.changed():
            call.not_replayable = _SWITCHED

    def _may_be_changed(self, given: Any) -> bool:
        """Return whether text embeddings of the same memory as before may hold other numbers."""
        version = version_of(given)
        parts = version if isinstance(version, tuple) else (version,)
        return None in parts or version != self.call._given_version

    def _record(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        assert self._model is not None
        call, family = self.call, self._model.family
        self._prompts_rows = None
        told = self._model.arguments_by_name(args, kwargs)
        latents, given = family.unpack(self._model.module, told), told[family.text]
        count = int(latents.shape[0])
        if told.get("skip_layers") is not None:
            # Skip-layer guidance: a pass with fewer layers, beside the two.
            call.rows += count
            return
        if family.two_calls and self._is_of_negative(told):
            call.rows += count
            everything = slice(0, count)
            if call.negative_embeddings is None:
                texts = _stacked(self._model.text(told), everything)
                # One negative prompt may be that of all images.
                texts = texts.expand(count, -1, -1) if len(texts) == 1 else texts
                call.add_negative(texts, self._recorded(told), everything, count)
            if self._tap is not None and call.negative_accumulator is not None:
                self._receivers = [(call.negative_accumulator, slice(None))]
                self._tap.begin(told, count, everything, module)
                self._listening = True
            return
        conditional, negative = self._rows(count)
        self._look_at_parts(self._model.modules)
        texts = self._model.text(told)
        if call.embeddings is None:
            call.guidance_scale = _guidance_scale(self.pipe, call.arguments, family.guidance)
            normed = (m for m in parts_of(module) if m._modules.get("norm_q") is not None)
            self._processors = [(m, m.processor) for m in normed if hasattr(m, "processor")]
            call.embeddings = _stacked(texts, conditional)
            if negative is not None and _all_equal(texts[negative]):
                away = _stacked(texts, negative)
                call.add_negative(away, self._recorded(told), negative, count)
        elif not tensors_equal(call._given, given) or self._may_be_changed(given):
            own = _stacked(texts, conditional)
            alike = own.shape == call.embeddings.shape
            call.moved.append((own != call.embeddings).any() if alike else torch.tensor(True))
        call._given, self._latents = given, told[family.latents]
        call._given_version = version_of(given)
        call.rows += count
        time = told[family.time]
        call.timesteps.append(time.detach().clone() if isinstance(time, torch.Tensor) else time)
        call.latents.append(latents[conditional].detach().clone())
        try:
            told_besides = self._model.recorded(told)
            if family.level_is_recorded:
                level = sigma_now(self.pipe.scheduler, time)
                told_besides[NOISE_LEVEL] = torch.full((count,), level)
            call.add_step(told_besides, conditional, count)
        except NotRecordableError as error:
            call.not_replayable = str(error)
        if len(self._model.modules) > 1 and self._model.at(time_of(time)) is not module:
            call.not_replayable = "another denoiser drew a step than its noise level says"
        if isinstance(time, torch.Tensor) and time.ndim > 1 and bool((time != time[0, 0]).any()):
            call.not_replayable = "the timestep was another from place to place"
        if self._tap is not None:
            self._tap.begin(told, count, self._received(conditional, negative), module)
        self._listening, self._prompts_rows = True, conditional

    def _recorded(self, told: CallArguments) -> dict[str, Any]:
        """What a pass is told besides; nothing where that can't be recorded."""
        assert self._model is not None
        try:
            return self._model.recorded(told)
        except NotRecordableError:
            return {}

    def _received(self, conditional: slice, negative: slice | None) -> slice:
        """The rows of a pass that are looked at, and whose each of them is."""
        call = self.call
        assert call.accumulator is not None
        if negative is None or call.negative_accumulator is None:
            self._receivers = [(call.accumulator, slice(None))]
            return conditional
        first = min(conditional.start, negative.start)
        both = [(call.accumulator, conditional), (call.negative_accumulator, negative)]
        self._receivers = [(sums, slice(r.start - first, r.stop - first)) for sums, r in both]
        return slice(first, max(conditional.stop, negative.stop))

    def _is_of_negative(self, told: CallArguments) -> bool:
        """Return whether a call follows one with the same latents and other text: guidance calls
        first with the prompt, then with the negative prompt."""
        assert self._model is not None
        family = self._model.family
        before = self._latents
        return (
            before is not None
            and tensors_equal(before, told[family.latents])
            and not tensors_equal(self.call._given, told[family.text])
        )

    def _rows(self, count: int) -> tuple[slice, slice | None]:
        """Return the conditional rows of a batch, and those of the negative prompt."""
        wanted = self.call.count
        guided = getattr(self.pipe, "do_classifier_free_guidance", None)
        if wanted is None:
            wanted = count // 2 if guided else count
        groups, rest = divmod(count, wanted)
        perturbed = bool(getattr(self.pipe, "do_perturbed_attention_guidance", False))
        assert self._model is not None
        if self._model.family.two_calls:
            # The negative prompt's rows come by themselves.
            guided = None
        place = _group(groups, guided, perturbed, self._model.conditional_first)
        if place is None or rest:
            raise ValueError(
                f"{type(self.pipe).__name__} gave its denoiser {count} rows for {wanted} image(s), "
                "of which it can't be told which are the prompt's"
            )
        own, away = place
        rows = [slice(k * wanted, (k + 1) * wanted) for k in range(groups)]
        return rows[own], None if away is None else rows[away]

    def _receive(self, layers: Sequence[str], grid: tuple[int, ...], probs: torch.Tensor) -> None:
        for accumulator, rows in self._receivers:
            accumulator.add(layers, len(self.call.timesteps) - 1, grid, probs[:, rows])


def _guidance_scale(pipe: Any, arguments: dict[str, Any], name: str) -> float:
    """Return the strength of guidance in a call, by the name of its argument; 1 where nothing says
    it."""
    if name == "true_cfg_scale" and name in arguments:
        away = (arguments.get(n) for n in ("negative_prompt", "negative_prompt_embeds"))
        return float(arguments[name]) if any(one is not None for one in away) else 1.0
    scale = getattr(pipe, "guidance_scale", arguments.get("guidance_scale"))
    if scale is None:
        # HunyuanImage's is an object.
        scale = getattr(getattr(pipe, "guider", None), "guidance_scale", None)
    return float(1.0 if scale is None else scale)


def _group(
    groups: int, guided: bool | None, perturbed: bool, conditional_first: bool
) -> tuple[int, int | None] | None:
    """Return the index of the prompt's part among a batch's equal parts, and that of the negative
    prompt's; None where it can't be told."""
    if groups == 1:
        return None if guided else (0, None)
    if guided is None and groups != 2 and not (perturbed and groups == 3):
        return None
    if groups == 2:
        if perturbed:
            return (0, None)
        # A pipeline that says it doesn't guide has two rows an image for another reason.
        if guided is False:
            return None
        return (0, 1) if conditional_first else (1, 0)
    if groups == 3:
        return (1, 0) if perturbed else ((0, 2) if conditional_first else None)
    return None


def times_of(times: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return ``time_of`` each; what lies on a device is fetched at once."""
    if not all(isinstance(time, torch.Tensor) for time in times):
        return np.array([time_of(time) for time in times], np.float64)
    last = [time.reshape(-1)[-1] for time in times]
    return torch.stack(last).cpu().double().numpy() if last else np.zeros(0)


def time_of(time: Any) -> float:
    """Return the timestep that a denoiser was told, of its last row or place."""
    return float(time.reshape(-1)[-1]) if isinstance(time, torch.Tensor) else float(time)


def _as_list(prompt: Any) -> list[str] | None:
    if prompt is None:
        return None
    return [prompt] if isinstance(prompt, str) else [str(one) for one in prompt]


def images_of(output: Any) -> Any:
    """Return a pipeline's images, whatever they are wrapped in."""
    for name in ("images", "frames", "image"):
        if hasattr(output, name):
            return getattr(output, name)
    return output[0] if isinstance(output, (tuple, list)) and len(output) else output


def as_uint8(image: Any, *, video: bool = False) -> npt.NDArray[np.uint8]:
    """A pipeline's output image (PIL, numpy or tensor) as ``(height, width, 3)`` uint8; of a video,
    which is a list or an array of such, ``(frames, height, width, 3)``."""
    if video:
        return np.stack([as_uint8(frame) for frame in image])
    if isinstance(image, torch.Tensor):
        image = image.detach().float().cpu().permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        return pixels_of(image)
    return np.asarray(image.convert("RGB"))
