"""The checks of ``check_backend``, one function each."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.backends.attention import AXES, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Array, MissingCapabilityError
from wordlight.backends.testing.subject import PROMPTS, SEEDS, STEPS, Subject, distance
from wordlight.backends.tokens import PromptTooLongError, Stream, Tokens
from wordlight.backends.trajectory import Trajectory

#: A probability's rounding, summed over a context: float32, and in half precision.
_SUM, _HALF_SUM = 1e-4, 2e-2
#: Attention is averaged in float32, whatever the model computes in.
_MEAN_ROUNDING = 1e-6
#: Steps of differences, as shares of the point's norm, the likeliest first, and how near
#: the best of them is to a right derivative: at some step the error of the formula, which grows
#: with it, and that of rounding, which shrinks, are both small.
_DIFFERENCES, _DIFFERENCE_ERROR = (0.01, 0.03, 0.003, 0.001, 1e-4, 1e-5), 1e-2
#: Steps of a fit, for functions that round so coarsely that no difference is near.
_FITTED = np.linspace(0.005, 0.06, 12)


def describes_itself(subject: Subject) -> None:
    """Name, revision, device and dtype are what trajectories and tables can say."""
    backend = subject.backend
    for what in ("framework", "model_id", "device", "dtype"):
        value = getattr(backend, what, None)
        subject.expect(isinstance(value, str) and value, f"its {what} is {value!r}, and not a name")
    revision = getattr(backend, "revision", "")
    subject.expect(
        revision is None or (isinstance(revision, str) and revision),
        f"its revision is {revision!r}: a name, or None where there is none",
    )
    subject.expect(
        isinstance(backend.capabilities, frozenset),
        f"its capabilities are a {type(backend.capabilities).__name__}, and must be a frozenset",
    )


def tokenizes_with_offsets(subject: Subject) -> None:
    """Every letter of a prompt is a token's, in order and in one stretch, of each text encoder that
    reads the prompt."""
    backend = subject.backend
    for text in (*PROMPTS, "  a red,  blue circle.", "ünusual wørds"):
        prompt = subject.written(text)
        tokens = backend.tokenize(prompt)
        subject.expect(tokens.prompt == prompt, f"its tokens of {prompt!r} are of {tokens.prompt}")
        for stream in tokens.streams or (Stream("", 0, len(tokens)),):
            _check_stream(subject, tokens.at(range(stream.start, stream.stop)))
    _check_length(subject)


def _check_stream(subject: Subject, tokens: Tokens) -> None:
    prompt, covered = tokens.prompt, list[int]()
    for place in tokens.positions("text"):
        start, stop = tokens.offsets[place]
        subject.expect(
            0 <= start < stop <= len(prompt),
            f"token {place} of {prompt!r} has the offsets {(start, stop)}, and should have "
            "its characters' in the prompt",
        )
        covered += range(start, stop)
    # A letter may take several tokens, which then share its place.
    before, _, after = subject.backend.prompt_form.partition("{prompt}")
    read = range(len(before), len(prompt) - len(after))
    letters = [i for i in read if not prompt[i].isspace()]
    subject.expect(
        covered == sorted(covered) and set(letters) <= set(covered),
        f"its tokens of {prompt!r} have the offsets "
        f"{[tokens.offsets[i] for i in tokens.positions('text')]}: together they must have "
        "every character but spaces, in order",
    )
    # Templates and padding may stand on either side.
    order = [k for k in tokens.kinds if k in ("start", "text", "end")]
    order = [k for i, k in enumerate(order) if not i or order[i - 1] != k]
    text = tokens.positions("text")
    subject.expect(
        order == [k for k in ("start", "text", "end") if k in order]
        and text == tuple(range(text[0], text[-1] + 1)),
        f"its tokens of {prompt!r} are of the kinds {tokens.kinds}: the order is start, text, end, "
        "and the text is one stretch",
    )


def _check_length(subject: Subject) -> None:
    """Tokens fill the context, where there is one length; a prompt that is longer is refused."""
    backend = subject.backend
    lengths = [len(backend.tokenize(prompt)) for prompt in subject.prompts]
    if len(set(lengths)) > 1:
        # As long as each prompt: then so are its embeddings.
        made = int(subject.answer("encode").embeddings.shape[1])
        subject.expect(
            made == lengths[0],
            f"its tokens have the lengths {lengths}, and the embeddings of the first prompt "
            f"{made}: pad to the context where there is one, or to neither",
        )
        return
    long = subject.written(" ".join(["circle"] * (lengths[0] + 1)))
    try:
        held = backend.tokenize(long)
    except PromptTooLongError:
        return
    subject.expect(
        len(held) > lengths[0],
        "a prompt that the context can't hold must raise PromptTooLongError",
    )
    _check_stream(subject, held)


def is_honest_about_its_capabilities(subject: Subject) -> None:
    """Check that what it claims works, and that what it doesn't claim raises the named error."""
    for name, primitive in subject.primitives.items():
        if subject.has(primitive.capability):
            subject.answer(name)
            continue
        if primitive.capability == "encode":  # every backend's own
            continue
        answer = subject.tried(name).answer
        if not isinstance(answer, MissingCapabilityError):
            did = f"raises {type(answer).__name__}" if isinstance(answer, Exception) else "answers"
            subject.fail(
                f"it doesn't claim {primitive.capability}, and {name} {did}: without the "
                "capability it must raise MissingCapabilityError (self.require does)"
            )


def counts_what_it_is_asked(subject: Subject) -> None:
    """Forward passes, forward- and reverse-mode products are counted row by row."""
    for name, primitive in subject.primitives.items():
        if not subject.has(primitive.capability):
            continue
        subject.answer(name)
        spent, right = subject.tried(name).spent, primitive.spends()
        subject.expect(
            spent in right,
            f"{name} counts {spent}, and what it was asked for is {' or '.join(map(str, right))}",
        )


def converts_arrays(subject: Subject) -> None:
    """``to_numpy(asarray(x))`` is x, in float32 or float64."""
    given = np.linspace(-1, 1, 24).reshape(2, 3, 4)
    back = subject.backend.to_numpy(subject.backend.asarray(given))
    subject.expect(
        back.dtype in (np.float32, np.float64), f"to_numpy gives {back.dtype}: float32 or float64"
    )
    subject.assert_close(back, given, "to_numpy(asarray(x)) and x")


def encodes_prompts_one_by_one(subject: Subject) -> None:
    """One row a prompt, the same alone and in company."""
    if not subject.has("encode"):
        return
    backend = subject.backend
    alone, both = subject.answer("encode"), backend.encode(subject.prompts)
    lengths = [len(backend.tokenize(prompt)) for prompt in subject.prompts]
    channels = int(alone.embeddings.shape[-1])
    subject.shaped(alone.embeddings, (1, lengths[0], channels), "what encode gives of one prompt")
    subject.shaped(both.embeddings, (2, max(lengths), channels), "what encode gives of two prompts")
    subject.assert_close(
        alone.embeddings,
        both.embeddings[:1, : lengths[0]],
        "a prompt encoded alone and beside another",
    )
    for name, rows in both.added.items():
        subject.expect(rows.shape[0] == 2, f"its added {name!r} has {rows.shape[0]} rows for two")
    subject.expect(
        distance(subject.numpy(both.embeddings[1]), subject.numpy(both.embeddings[0])) > 1e-3,
        "it encodes two different prompts alike",
    )


def encodes_from_token_embeddings(subject: Subject) -> None:
    """``encode_from(token_embeddings(p))`` is ``encode(p)``, and its products are its slopes."""
    if not subject.has("encode", "encode_from"):
        return
    made, encoded = subject.answer("encode_from"), subject.answer("encode")
    subject.shaped(
        subject.answer("token_embeddings"),
        tuple(subject.input_embeddings.shape[1:]),
        "what token_embeddings gives",
    )
    subject.assert_close(
        made.embeddings, encoded.embeddings, "encode_from(token_embeddings(p)) and encode([p])"
    )
    point, tangents = subject.input_embeddings, subject.input_tangents
    there, changes = subject.answer("encode_from_jvp")
    subject.assert_close(
        there.embeddings, made.embeddings, "encode_from_jvp's value and encode_from's"
    )
    subject.shaped(changes, (2, *made.embeddings.shape[1:]), "the changes of encode_from_jvp")
    _check_one_by_one(
        subject,
        "encode_from_jvp",
        lambda some: subject.backend.encode_from_jvp(point, some)[1],
        tangents,
        changes,
    )
    _check_slope(
        subject,
        "encode_from_jvp",
        lambda x: subject.backend.encode_from(x).embeddings,
        point,
        tangents[:1],
        changes[:1],
    )


def samples_what_it_says(subject: Subject) -> None:
    """A trajectory's parts are of the shapes, and of the prompt, that it says."""
    if not subject.has("sample"):
        return
    run, backend = subject.trajectory, subject.backend
    height, width = subject.size
    _check_run(subject, run, STEPS)
    subject.expect(
        (run.prompt, run.seed, run.noise_source) == (subject.prompts[0], SEEDS[0], "sampled"),
        f"its trajectory of {subject.prompts[0]!r} with seed {SEEDS[0]} says {run.prompt!r}, "
        f"{run.seed}, {run.noise_source!r}",
    )
    subject.expect(
        run.guidance_scale == backend.sampling.guidance_scale,
        f"its trajectory has the guidance scale {run.guidance_scale}, and the model's is "
        f"{backend.sampling.guidance_scale}",
    )
    subject.expect(
        run.image.shape == (height, width, 3) and run.image.dtype == np.uint8,
        f"its image is {run.image.shape} {run.image.dtype}, and should be {(height, width, 3)} "
        "uint8: height before width",
    )
    if subject.has("encode"):
        for name, prompt in (("embeddings", subject.prompts[0]), ("empty_embeddings", "")):
            own, made = getattr(run, name), subject.numpy(backend.encode([prompt]).embeddings)[0]
            n_both = min(len(own), len(made))
            subject.assert_close(
                own[:n_both], made[:n_both], f"a trajectory's {name} and encode([{prompt!r}])"
            )


def _check_run(subject: Subject, run: Trajectory, steps: int) -> None:
    times = [float(time) for time in run.timesteps]
    wanted = subject.backend.denoising_steps(steps)
    # What a denoiser is told may rise as the noise falls.
    at = [subject.backend.noise_level_at(run, step) for step in range(run.steps)]
    levels = [sigma / (alpha + sigma) for alpha, sigma in at]
    subject.expect(
        len(times) == wanted and levels == sorted(levels, reverse=True),
        f"its trajectory has the timesteps {times} with the shares of noise {levels}: {wanted} "
        "from noise to image were asked for",
    )
    subject.expect(
        (run.model_id, run.framework, run.revision)
        == (subject.backend.model_id, subject.backend.framework, subject.backend.revision),
        "its trajectory says another model_id, framework or revision than the backend",
    )
    subject.expect(np.isfinite(run.latents).all(), "its trajectory has NaN or infinite latents")


def samples_by_seed(subject: Subject) -> None:
    """The same seed gives the same run, to the bit; another seed another."""
    if not subject.has("sample"):
        return
    run, again = subject.trajectory, subject.draw(subject.prompts[0], SEEDS[0])
    subject.expect(
        np.array_equal(run.latents, again.latents) and np.array_equal(run.image, again.image),
        "drawn again with the same seed, the latents or the image are others: what is random must "
        "depend on the seed alone",
    )


def samples_batches_one_by_one(subject: Subject) -> None:
    """Images of one call are what each is alone, by its own seed."""
    if not subject.has("sample"):
        return
    backend = subject.backend
    spent = backend.evaluations.forward
    both = subject.draw(list(subject.prompts), list(SEEDS))
    spent = backend.evaluations.forward - spent
    wanted = 2 * subject.rows_of(STEPS)
    subject.expect(
        spent == wanted, f"two images of {STEPS} steps count {spent} rows, and are {wanted}"
    )
    subject.expect(
        [(run.prompt, run.seed) for run in both] == list(zip(subject.prompts, SEEDS, strict=True)),
        "drawn together, images have other prompts or seeds than were asked for, or another order",
    )
    if subject.given is None:
        subject.assert_close(
            both[0].latents, subject.trajectory.latents, "an image drawn in company and alone"
        )
    noise = [run.latents[0] for run in both]
    subject.expect(
        distance(noise[1], noise[0]) > 0.1, "two images with different seeds start from one noise"
    )


def inverts_by_adding_noise(subject: Subject) -> None:
    """Latents are α·clean + σ·noise with one draw of noise, from the seed."""
    if not subject.has("invert"):
        return
    backend = subject.backend
    (run,) = subject.answer("invert")
    _check_run(subject, run, 3)
    subject.expect(
        run.noise_source == "noising" and np.array_equal(run.image, subject.image),
        "an inverted trajectory has the image that was given, and noise_source='noising'",
    )
    levels = np.array([backend.noise_level_at(run, step) for step in range(run.steps)])
    flat = subject.numpy(run.latents).reshape(3, -1)
    parts = np.linalg.lstsq(levels, flat, rcond=None)[0]
    subject.assert_close(
        levels @ parts,
        flat,
        "noised latents and α·clean + σ·noise with one draw of noise, at noise_level(timestep)",
    )
    subject.assert_close(
        parts[0].reshape(run.latents.shape[1:]),
        subject.numpy(backend.encode_image(subject.image))[0],
        "the clean part of noised latents and encode_image of the image",
    )
    spread = float(parts[1].std())
    subject.expect(
        0.7 < spread < 1.4,
        f"the noise it adds has the standard deviation {spread:.2f}, and should have 1",
    )
    (again,) = backend.invert([subject.image], [subject.prompts[0]], seed=SEEDS[0], steps=3)
    (other,) = backend.invert([subject.image], [subject.prompts[0]], seed=SEEDS[1], steps=3)
    subject.expect(
        np.array_equal(again.latents, run.latents) and distance(other.latents, run.latents) > 0.01,
        "inverted again with the same seed, the latents must be the same to the bit, and with "
        "another seed others",
    )


def denoises_rows_one_by_one(subject: Subject) -> None:
    """A prediction depends on its own row, and on latents, timestep and embeddings."""
    if not subject.has("denoise"):
        return
    backend, latents, time = subject.backend, subject.latents, subject.timestep
    one = subject.answer("denoise")
    shape = tuple(subject.clean_latents.shape)
    subject.shaped(one, shape, "a prediction")
    repeated = backend.denoise(latents, time, subject.conditioning)
    subject.expect(
        np.array_equal(subject.numpy(repeated), subject.numpy(one)),
        "asked again, denoise answers otherwise: it must be deterministic",
    )
    rows = np.stack([subject.trajectory.embeddings, subject.other_embeddings])
    two = backend.asarray(subject.trajectory.latents[[subject.step, 0]])
    both = backend.denoise(two, time, subject.conditioned(rows))
    subject.shaped(both, (2, *shape[1:]), "a prediction of two rows")
    subject.assert_close(both[:1], one, "a row denoised in company and alone")
    other = backend.denoise(latents, time, subject.conditioned(rows[1:]))
    earlier = backend.denoise(latents, float(subject.trajectory.timesteps[0]), subject.conditioning)
    for what, changed in (("embeddings", other), ("timesteps", earlier)):
        subject.expect(
            distance(subject.numpy(changed), subject.numpy(one)) > 1e-6,
            f"it predicts the same for other {what}",
        )


def takes_the_steps_that_it_predicts(subject: Subject) -> None:
    """``denoise``, ``noise_level`` and ``sample`` agree: a step is the one that the prediction, in
    epsilon units, leads to.

    From α·clean + σ·ε the clean latents follow, and from these the next latents. That is so of the
    first step of any sampler; where that begins with noise alone, which tells nothing of the clean
    latents, of the next of one of first order. A sampler may draw noise in place of a part of ε.
    """
    run = subject.unguided
    if not subject.has("denoise") or run.not_replayable or _sees_more_than_latents(subject):
        return
    levels = [subject.backend.noise_level_at(run, step) for step in range(run.steps)]
    step = next((k for k, (alpha, _) in enumerate(levels[:-1]) if alpha > _LEAST_SIGNAL), None)
    if step is None:
        return
    seen, following = (subject.numpy(run.latents[k]) for k in (step, step + 1))
    noise = _guided(subject, run, step)
    (alpha, sigma), following_level = levels[step : step + 2]
    clean = (seen - sigma * noise) / alpha
    straight = following_level[0] * clean + following_level[1] * noise
    # Schedulers keep their levels in float32, by which the share of signal is divided.
    rounding = max(subject.rounding, 3e-7 / alpha)
    if distance(straight, following) > rounding and not _is_a_noisy_step(
        subject, clean, noise, following, following_level
    ):
        subject.assert_close(
            straight,
            following,
            "the latents of a run's next step and those that denoise and noise_level lead to "
            "(predictions are in epsilon units; check with a sampler of first order)",
            at_least=rounding,
        )


#: The least share of clean latents in what a denoiser is shown that they can be told from.
_LEAST_SIGNAL = 1e-4


def _sees_more_than_latents(subject: Subject) -> bool:
    """Return whether a picture is shown beside the latents, which guidance may push away from."""
    return subject.n_predicted < int(subject.latents.shape[1])


def _guided(subject: Subject, run: Trajectory, step: int) -> npt.NDArray[Any]:
    """The prediction of a step that its sampler took: pushed away from the negative prompt's."""
    own = subject.predicted(run, step)
    if run.negative_embeddings is None:
        return own
    told = {**run.added_at(step), **run.negative_added}
    negative = replace(run, added=told, step_added={}, predictions=None)
    away = subject.predicted(negative, step, run.negative_embeddings)
    guided: npt.NDArray[Any] = away + run.guidance_scale * (own - away)
    return guided


def _is_a_noisy_step(
    subject: Subject,
    clean: npt.NDArray[Any],
    noise: npt.NDArray[Any],
    following: npt.NDArray[Any],
    level: tuple[float, float],
) -> bool:
    """Return whether a step keeps ``level[0]`` of the clean latents, and what it has of the noise
    and of noise that it draws come to ``level[1]``, within five standard errors of a fit."""
    parts = np.stack([clean.ravel(), noise.ravel()], axis=1)
    found = np.linalg.lstsq(parts, following.ravel(), rcond=None)[0]
    rest = following.ravel() - parts @ found
    drawn = float(rest.std())
    if np.linalg.norm(rest) <= subject.rounding * np.linalg.norm(following):
        return False
    error = drawn * np.sqrt(np.diag(np.linalg.inv(parts.T @ parts)))
    of_drawn = drawn / np.sqrt(2 * len(rest))
    of_all = 2 * np.hypot(found[1] * error[1], drawn * of_drawn)
    off = abs(found[1] ** 2 + drawn**2 - level[1] ** 2)
    return bool(abs(found[0] - level[0]) <= 5 * error[0] and off <= 5 * of_all)


def forward_mode_gives_slopes(subject: Subject) -> None:
    """``denoise_jvp`` is how ``denoise`` changes, direction by direction."""
    if not subject.has("denoise", "denoise_jvp"):
        return
    latents, time = subject.latents, subject.timestep
    value, changes = subject.answer("denoise_jvp")
    subject.assert_close(value, subject.answer("denoise"), "denoise_jvp's value and denoise's")
    subject.shaped(changes, (2, *subject.clean_latents.shape[1:]), "the changes of denoise_jvp")
    _check_one_by_one(
        subject,
        "denoise_jvp",
        lambda some: subject.backend.denoise_jvp(latents, time, subject.conditioning, some)[1],
        subject.tangents,
        changes,
    )
    _check_slope(
        subject,
        "denoise_jvp",
        lambda x: subject.backend.denoise(latents, time, subject.conditioned(x)),
        subject.conditioning.embeddings,
        subject.tangents[:1],
        changes[:1],
    )


def parts_make_up_the_difference(subject: Subject) -> None:
    """``denoise_parts`` of parts that sum to the difference of two prompts' embeddings sum to the
    difference of their predictions, and each is its own."""
    if not subject.has("denoise", "denoise_parts"):
        return
    backend, latents, time = subject.backend, subject.latents, subject.timestep
    baseline = subject.baseline
    shares = subject.answer("denoise_parts")
    subject.shaped(shares, (2, *subject.clean_latents.shape[1:]), "the answer of denoise_parts")
    after = subject.numpy(subject.answer("denoise"))
    difference = after - subject.numpy(
        backend.denoise(latents, time, subject.conditioned(baseline))
    )
    subject.assert_close(
        subject.numpy(shares).sum(axis=0, keepdims=True),
        difference,
        "the sum of denoise_parts and the difference of the predictions",
        # Of predictions that differ little, rounding leaves the difference few digits.
        at_least=0.1 * subject.rounding * float(np.linalg.norm(after) / np.linalg.norm(difference)),
    )
    _check_one_by_one(
        subject,
        "denoise_parts",
        lambda some: backend.denoise_parts(latents, time, subject.conditioning, baseline, some),
        subject.parts,
        shares,
    )


def encoder_parts_make_up_the_difference(subject: Subject) -> None:
    """``encode_from_parts`` of parts that sum to the difference of two input embeddings sum to the
    difference of what the text encoder makes of them, and each is its own."""
    if not subject.has("encode_from", "denoise_parts"):
        return
    backend, point = subject.backend, subject.input_embeddings
    baseline, parts = 0.5 * point, 0.5 * subject.in_two(point)
    shares = backend.encode_from_parts(point, baseline, parts)
    ends = [subject.numpy(backend.encode_from(one).embeddings) for one in (point, baseline)]
    subject.shaped(shares, (2, *ends[0].shape[1:]), "the answer of encode_from_parts")
    subject.assert_close(
        subject.numpy(shares).sum(axis=0, keepdims=True),
        ends[0] - ends[1],
        "the sum of encode_from_parts and the difference of the embeddings",
    )
    _check_one_by_one(
        subject,
        "encode_from_parts",
        lambda some: backend.encode_from_parts(point, baseline, some),
        parts,
        shares,
    )


def reverse_mode_transposes_forward_mode(subject: Subject) -> None:
    """⟨v, J·u⟩ = ⟨Jᵀ·v, u⟩."""
    if not subject.has("denoise_jvp", "denoise_vjp"):
        return
    _, changes = subject.answer("denoise_jvp")
    forward = subject.numpy(changes)
    # Half of v points along J·u: the product of two random directions would be lost in rounding.
    likely = forward[:1] / np.linalg.norm(forward[:1])
    random = subject.numpy(subject.cotangent)
    cotangent = subject.backend.asarray(likely + random / np.linalg.norm(random))
    gradient = subject.backend.denoise_vjp(
        subject.latents, subject.timestep, subject.conditioning, cotangent
    )
    subject.shaped(gradient, tuple(subject.conditioning.embeddings.shape), "denoise_vjp's gradient")
    vector = subject.numpy(cotangent)
    tangents = subject.numpy(subject.tangents)
    one = (vector * forward).reshape(2, -1).sum(axis=1)
    two = (subject.numpy(gradient) * tangents).reshape(2, -1).sum(axis=1)
    subject.assert_close(two[:1], one[:1], "⟨denoise_vjp(v), u⟩ and ⟨v, denoise_jvp(u)⟩")
    # The second direction is any: what is near zero is measured by the first.
    subject.expect(
        abs(two[1] - one[1]) <= subject.rounding * max(abs(one)),
        f"⟨denoise_vjp(v), u⟩ is {two[1]:.6g} and ⟨v, denoise_jvp(u)⟩ {one[1]:.6g}: they are the "
        "same number",
    )


def reverse_mode_takes_rows_one_by_one(subject: Subject) -> None:
    """A row's gradient is its own, and that of differences."""
    if not subject.has("denoise", "denoise_vjp"):
        return
    backend, time = subject.backend, subject.timestep
    alone = subject.answer("denoise_vjp")
    two = backend.asarray(subject.trajectory.latents[[subject.step, 0]])
    rows = np.stack([subject.trajectory.embeddings, subject.other_embeddings])
    cotangents = backend.asarray(np.repeat(subject.numpy(subject.cotangent), 2, axis=0))
    both = backend.denoise_vjp(two, time, subject.conditioned(rows), cotangents)
    subject.assert_close(both[:1], alone, "a row's gradient in company and alone")
    direction = subject.as_long_as_embeddings(alone)
    product = np.array((subject.numpy(alone) * subject.numpy(direction)).sum())

    def along(x: Array) -> npt.NDArray[Any]:
        predicted = backend.denoise(subject.latents, time, subject.conditioned(x))
        return np.array((subject.numpy(predicted) * subject.numpy(subject.cotangent)).sum())

    _check_slope(subject, "denoise_vjp", along, subject.conditioning.embeddings, direction, product)


def attends_with_probabilities(subject: Subject) -> None:
    """Cross-attention's maps sum to one over the tokens, kept apart or averaged."""
    if not subject.has("attention"):
        return
    run = subject.trajectory
    means = subject.answer("attention")
    _check_sums(subject, means, "attention", len(run.tokens))
    kept = subject.backend.attention(
        run, AttentionQuery(keep=("step", "layer", "head")), (0, subject.step)
    )
    _check_sums(subject, kept, "attention kept apart", len(run.tokens))
    subject.expect(
        kept.values_along("step") == [0, subject.step],
        f"steps kept apart have the numbers {kept.values_along('step')}, and were asked for as "
        f"{[0, subject.step]}",
    )
    for mean in means.means:
        grid = mean.values.shape[1:]
        parts = [part for part in kept.means if part.values.shape[1:] == grid]
        subject.expect(
            mean.count == sum(part.count for part in parts),
            f"the average on the grid {grid} says that it is of {mean.count} maps, and there are "
            f"{sum(part.count for part in parts)}",
        )
        weights = [part.count for part in parts]
        subject.assert_close(
            np.average([part.values for part in parts], axis=0, weights=weights),
            mean.values,
            f"maps kept apart, averaged, and the average on the grid {grid}",
            at_least=_MEAN_ROUNDING,
        )
    try:
        subject.backend.attention(run, AttentionQuery(layers=("no_such_layer",)), (0,))
    except ValueError:
        return
    subject.fail("attention of layers that don't exist must raise ValueError (query.check does)")


def _check_sums(
    subject: Subject, means: AttentionMeans, what: str, tokens: int | None = None
) -> None:
    for mean in means.means:
        keys, *grid = mean.values.shape
        sides = " x ".join(map(str, grid))
        wanted = math.prod(grid) if tokens is None else tokens
        subject.expect(keys == wanted, f"{what} on the grid {sides} has {keys} maps, not {wanted}")
        subject.expect((mean.values >= 0).all(), f"{what} has values below zero")
        off = mean.values.sum(axis=0) - 1
        # In joint attention the rest is to the other keys.
        beyond = float(off.max() if subject.backend.attends_jointly else np.abs(off).max())
        allowed = _HALF_SUM if subject.is_half else _SUM
        subject.expect(
            beyond <= allowed,
            f"{what} on the grid {sides} sums to one over its keys but for "
            f"{beyond:.1e}: these must be probabilities, after the softmax",
        )


def attends_to_itself_with_probabilities(subject: Subject) -> None:
    """Self-attention has a map a place, and they sum to one over the places."""
    if subject.has("self_attention"):
        name = "attention with kind='self'"
        _check_sums(subject, subject.answer(name), "self-attention")


def gives_other_words_their_scores(subject: Subject) -> None:
    """Keys that are the prompt's own tokens get those tokens' own probabilities in their places,
    and beside the prompt what the softmax then has for them."""
    if not subject.has("attention", "attention_keys"):
        return
    own = subject.answer("attention").means
    others = subject.answer("attention with keys").means
    subject.expect(
        [mean.values.shape for mean in own] == [mean.values.shape for mean in others],
        "attention to as many keys as tokens has other shapes than attention to the tokens",
    )
    for one, other in zip(own, others, strict=True):
        subject.assert_close(
            other.values,
            one.values,
            "attention to the prompt's own embeddings as keys, and to it",
            at_least=_MEAN_ROUNDING,
        )
    # With p what it has, a second one of it has p/(1 + p): of each head's map by itself.
    once, twice = (
        subject.backend.attention(subject.trajectory, AttentionQuery(keep=AXES), (0,), keys)
        for keys in (None, subject.own_keys(in_place=False))
    )
    for one, two in zip(once.means, twice.means, strict=True):
        subject.assert_close(
            two.values,
            one.values / (1 + one.values),
            "attention to the prompt's own embeddings as words beside it, and p/(1 + p)",
            at_least=_MEAN_ROUNDING,
        )


def concepts_leave_the_run_alone(subject: Subject) -> None:
    """Check that the prompt's tokens have the same in common with the picture whatever concepts are
    carried beside them, and that each concept has a map."""
    if not subject.has("concept_attention"):
        return
    tokens = len(subject.trajectory.tokens)
    two, one = subject.answer("concept_attention").means, subject.concepts(2, 3).means
    for first, other in zip(two, one, strict=True):
        lengths = len(first.values), len(other.values)
        subject.expect(
            lengths == (tokens + 2, tokens + 1),
            f"with 2 concepts and with 1 there are {lengths} maps, and should be one for each of "
            f"the {tokens} tokens, and each concept",
        )
        subject.assert_close(
            first.values[:tokens],
            other.values[:tokens],
            "the prompt's own maps beside some concepts, and beside others",
            at_least=_MEAN_ROUNDING,
        )


def attention_gradients_scale(subject: Subject) -> None:
    """``attention_vjp`` is not negative, and twice as much for twice the cotangent."""
    if not subject.has("attention_vjp"):
        return
    backend = subject.backend
    once = subject.answer("attention_vjp")
    twice = backend.attention_vjp(
        subject.latents,
        subject.timestep,
        subject.conditioning,
        2 * subject.cotangent,
        AttentionQuery(),
    )
    for one, two in zip(once.means, twice.means, strict=True):
        subject.expect(
            one.values.shape[0] == len(subject.trajectory.tokens),
            f"attention_vjp has {one.values.shape[0]} maps for {len(subject.trajectory.tokens)} "
            "tokens",
        )
        subject.expect((one.values >= 0).all(), "attention_vjp has values below zero: no ReLU?")
        subject.assert_close(
            two.values,
            2 * one.values,
            "attention_vjp of twice the cotangent, and twice",
            at_least=_MEAN_ROUNDING,
        )
    subject.expect(any(mean.values.any() for mean in once.means), "attention_vjp is all zeros")


def decodes_pixels(subject: Subject) -> None:
    """Latents become pixels of the image's size, row by row, and products are their slopes."""
    if not subject.has("decode"):
        return
    backend, latents = subject.backend, subject.clean_latents
    pixels = subject.answer("decode")
    height, width = subject.trajectory.image.shape[:2]
    subject.shaped(pixels, (1, 3, height, width), "what decode gives")
    two = subject.trajectory.latents[[subject.step, 0], : subject.n_predicted]
    both = backend.decode(backend.asarray(two))
    subject.shaped(both, (2, 3, height, width), "what decode gives of two rows")
    subject.assert_close(both[:1], pixels, "latents decoded in company and alone")
    value, changes = subject.answer("decode_jvp")
    subject.assert_close(value, pixels, "decode_jvp's value and decode's")
    subject.shaped(changes, (2, 3, height, width), "the changes of decode_jvp")
    _check_slope(
        subject,
        "decode_jvp",
        backend.decode,
        latents,
        subject.latent_tangents[:1],
        changes[:1],
    )


def randomizes_and_restores(subject: Subject) -> None:
    """Random weights change predictions, by seed, and are gone afterwards."""
    if not subject.has("randomized", "denoise"):
        return
    backend = subject.backend
    stages = backend.stages
    subject.expect(
        stages and len(set(stages)) == len(stages), f"its stages are {stages}: names, each once"
    )

    def predict() -> npt.NDArray[Any]:
        predicted = backend.denoise(subject.latents, subject.timestep, subject.conditioning)
        return subject.numpy(predicted)

    trained = subject.numpy(subject.answer("denoise"))
    drawn = subject.numpy(subject.answer("randomized"))
    subject.expect(distance(drawn, trained) > 1e-3, "random weights hardly change its predictions")
    with backend.randomized(stages[0], seed=1):
        again = predict()
    with backend.randomized(stages[0], seed=2):
        other = predict()
    subject.expect(np.array_equal(again, drawn), "one seed gives different random weights")
    subject.expect(distance(other, drawn) > 1e-3, "two seeds give the same random weights")
    try:
        with backend.randomized(stages[0], seed=1):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    subject.expect(
        np.array_equal(predict(), trained),
        "after randomized, also after an exception, its predictions aren't the trained ones to the "
        "bit: put the weights back in a finally",
    )
    try:
        with backend.randomized("no_such_stage"):
            pass
    except ValueError:
        return
    subject.fail("randomized must raise ValueError for a stage that doesn't exist")


def trajectories_travel(subject: Subject) -> None:
    """Saved and loaded, a trajectory is attended to as before, to the bit."""
    if not subject.has("attention"):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        subject.trajectory.save(path)
        loaded = Trajectory.load(path)
    before = subject.answer("attention")
    after = subject.backend.attention(loaded, AttentionQuery(), (0, subject.step))
    subject.expect(
        all(
            np.array_equal(one.values, two.values)
            for one, two in zip(before.means, after.means, strict=True)
        ),
        "it attends otherwise to a trajectory that was saved and loaded: a replay must depend on "
        "what the trajectory holds alone",
    )


def _check_one_by_one(
    subject: Subject, name: str, product: Callable[[Array], Array], tangents: Array, both: Array
) -> None:
    for number in range(2):
        subject.assert_close(
            both[number : number + 1],
            product(tangents[number : number + 1]),
            f"{name} of direction {number + 1} of two and of that alone",
        )


def _check_slope(
    subject: Subject,
    name: str,
    function: Callable[[Array], Array],
    point: Array,
    tangent: Array,
    change: Array,
) -> None:
    """Hold a directional derivative against central differences; the tangent is as long as the
    point."""
    if subject.is_half:
        return
    claimed = subject.numpy(change)

    def difference(step: float) -> npt.NDArray[Any]:
        ahead, behind = (subject.numpy(function(point + sign * step * tangent)) for sign in (1, -1))
        found: npt.NDArray[Any] = (ahead - behind) / (2 * step)
        return found

    apart = []
    for step in _DIFFERENCES:
        # Of two steps, so that what grows with their square is gone.
        extrapolated = (4 * difference(step) - difference(2 * step)) / 3
        apart.append(distance(extrapolated, claimed))
        if apart[-1] <= _DIFFERENCE_ERROR:
            return
    # Of a function that rounds coarsely, many steps, each weighed by its length.
    powers = np.stack([_FITTED, _FITTED**3], axis=1)
    values = np.stack([step * difference(step).ravel() for step in _FITTED])
    fitted = np.linalg.lstsq(powers, values, rcond=None)[0][0]
    apart.append(distance(fitted.reshape(claimed.shape), claimed))
    if apart[-1] <= _DIFFERENCE_ERROR:
        return
    subject.fail(
        f"{name} is {min(apart):.1e} of its norm from differences, (4·d(h) - d(2h)) / 3 with d(h) "
        "= (f(x + h·u) - f(x - h·u)) / 2h, at the best of h = " + ", ".join(map(str, _DIFFERENCES))
    )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    describes_itself,
    tokenizes_with_offsets,
    is_honest_about_its_capabilities,
    counts_what_it_is_asked,
    converts_arrays,
    encodes_prompts_one_by_one,
    encodes_from_token_embeddings,
    samples_what_it_says,
    samples_by_seed,
    samples_batches_one_by_one,
    inverts_by_adding_noise,
    denoises_rows_one_by_one,
    takes_the_steps_that_it_predicts,
    forward_mode_gives_slopes,
    parts_make_up_the_difference,
    encoder_parts_make_up_the_difference,
    reverse_mode_transposes_forward_mode,
    reverse_mode_takes_rows_one_by_one,
    attends_with_probabilities,
    attends_to_itself_with_probabilities,
    gives_other_words_their_scores,
    concepts_leave_the_run_alone,
    attention_gradients_scale,
    decodes_pixels,
    randomizes_and_restores,
    trajectories_travel,
)
