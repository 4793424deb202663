"""The checks of ``check_attributor``, one function each."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import BudgetError, Family, TextImageAttributor, partition
from wordlight.attribution.maps import AttributionMaps, Merge
from wordlight.attribution.probes import root_sum_square
from wordlight.attribution.testing.audit import Audit, PlantedError, footprint
from wordlight.attribution.testing.specimens import phrase_of, words_of
from wordlight.attribution.testing.subject import Subject, maps_equal, words_in
from wordlight.attribution.words import PromptWords, Word, WordPlace
from wordlight.backends.backend import Evaluations
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

#: Two ways to the same sum may differ by float32's rounding, after cancellation; what is wrong is
#: wrong by far more.
_ROUNDING = 1e-3
#: The same of images that share passes in half precision, some ten times a number's own rounding.
_OF_SHARED_PASSES = {"float16": 1e-2, "bfloat16": 8e-2}
_UNKNOWN = "xylophonist"


def describes_itself(subject: Subject) -> None:
    """Name, family, merge and effort are what the command line and the tables can show."""
    method = subject.attributor
    name = getattr(method, "name", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)):
        raise AssertionError(
            f"{type(method).__name__} has the name {name!r}: it must be in kebab-case, such as "
            "'integrated-gradients'"
        )
    for what, value, known in (
        ("family", getattr(method, "family", None), get_args(Family)),
        ("merge", method.merge, get_args(Merge)),
    ):
        subject.expect(
            value in known, f"its {what} is {value!r}, and must be one of {', '.join(known)}"
        )
    subject.expect(
        method.effort is None or method.effort in method.settings(),
        f"its effort option {method.effort!r} is none of its settings: make it an option, an "
        f"annotated attribute such as {method.effort}: int = 8",
    )


def has_plain_settings(subject: Subject) -> None:
    """``settings()`` is plain data, and all that it takes to make the method again."""
    settings = subject.attributor.settings()
    try:
        again = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        subject.fail(f"its settings {settings!r} are no JSON ({error}): keep plain data")
    subject.expect(
        again == _lists(settings),
        f"its settings {settings!r} read back from JSON as {again!r}: keep plain data",
    )
    try:
        rebuilt = subject.attributor.with_options()
    except (TypeError, ValueError) as error:
        subject.fail(
            f"type(a)(backend, **a.settings()) raises {type(error).__name__} ({error}): "
            "the attributes called as the constructor's options must hold what it was given"
        )
    subject.expect(
        rebuilt.settings() == settings,
        f"made again from its settings {settings!r}, it has the settings {rebuilt.settings()!r}",
    )
    plain = subject.specimens.plain
    subject.expect(
        maps_equal(subject.ask(plain, attributor=rebuilt), subject.answer(plain)),
        "made again from its settings it answers otherwise: an option that changes the answer is "
        "missing from them",
    )


def _lists(value: Any) -> Any:
    """Plain data as JSON reads it back: tuples become lists."""
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


def _check_shape(subject: Subject, trajectory: Trajectory) -> None:
    answer = subject.raw(trajectory)
    dims, sizes = answer.maps.dims, answer.maps.sizes
    inner = dims[1:-2]
    subject.expect(
        dims[:1] == ("word",)
        and dims[-2:] == ("y", "x")
        and list(inner) == [axis for axis in ("step", "layer", "head") if axis in inner],
        f"its maps have the dimensions {dims}, and should have ('word', 'y', 'x'), with any of "
        "'step', 'layer', 'head' before 'y'",
    )
    subject.expect(
        sizes["word"] == answer.players,
        f"it gives {sizes['word']} maps for {answer.players} players of {trajectory.prompt!r}: "
        "there must be one a player, in the players' order",
    )
    subject.expect(
        (sizes["y"], sizes["x"]) == trajectory.grid,
        f"its maps are {sizes['y']} x {sizes['x']}, and should be on the latent grid, height x "
        f"width, which is {trajectory.grid[0]} x {trajectory.grid[1]} here",
    )


def _check_finite(subject: Subject, trajectory: Trajectory) -> None:
    values = subject.raw(trajectory).maps.values
    bad = int((~np.isfinite(values)).sum())
    subject.expect(
        not bad,
        f"{bad} of {values.size} values of its maps of {trajectory.prompt!r} are NaN or infinite, "
        "and all must be finite",
    )


def gives_a_map_a_player(subject: Subject) -> None:
    """One map a player, on the latent grid; the players share out the whole context."""
    trajectory = subject.specimens.plain
    _check_shape(subject, trajectory)


def gives_finite_values(subject: Subject) -> None:
    """No NaN, no infinity."""
    _check_finite(subject, subject.specimens.plain)


def cuts_up_the_whole_context(subject: Subject) -> None:
    """Every position of the context belongs to exactly one player."""
    trajectory, maps = subject.specimens.plain, subject.answer(subject.specimens.plain)
    owned = sorted(token for player in maps.players for token in player.tokens)
    subject.expect(
        owned == list(range(len(trajectory.tokens))),
        f"its players {words_in(maps.players)} own the positions {owned}, and should own each of "
        f"the {len(trajectory.tokens)} of the context once",
    )


def is_honest_about_its_sign(subject: Subject) -> None:
    """A method that calls itself unsigned has no value below zero."""
    maps = subject.answer(subject.specimens.plain)
    subject.expect(
        maps.signed == subject.attributor.signed,
        f"its maps say signed={maps.signed}, its class signed={subject.attributor.signed}",
    )
    least = float(maps.data.values.min())
    subject.expect(
        maps.signed or least >= 0,
        f"it says signed=False, and has values down to {least:.3g}: say signed=True, or clamp them",
    )


def answers_the_same_again(subject: Subject) -> None:
    """The same question gives the same answer, to the bit, whatever was asked in between."""
    trajectory, first = subject.specimens.plain, subject.answer(subject.specimens.plain)
    subject.ask(subject.specimens.one_word)
    for how, attributor in (("asked again", subject.attributor), ("made anew", subject.made())):
        again = subject.ask(trajectory, attributor=attributor)
        subject.expect(
            maps_equal(first, again),
            f"{how}, it gives other maps of the same image: it must be deterministic, so "
            "randomness comes from a seed among its options",
        )


def leaves_the_trajectory_alone(subject: Subject) -> None:
    """No field and no array of the trajectory is changed."""
    before = subject.specimens.plain
    given = copy.deepcopy(before)
    subject.ask_anyhow(given)
    for name in (field.name for field in fields(before)):
        subject.expect(
            _equal(getattr(before, name), getattr(given, name)),
            f"it changed the trajectory's {name}: a trajectory is shared by all methods, so work "
            "on a copy",
        )


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    return bool(one == two)


def leaves_no_hooks(subject: Subject) -> None:
    """No hook, listener, processor or replaced method stays on the model, not even after an
    error."""
    trajectory, backend = subject.specimens.plain, subject.backend
    attributor = subject.made()
    with Audit(backend) as audit:
        subject.ask_anyhow(trajectory, attributor)
    _expect_clean(subject, subject.footprint, "")
    for number in sorted({1, audit.calls}) if audit.calls else ():
        with Audit(backend, fail_at=number):
            before = footprint(backend)
            try:
                attributor.attribute(trajectory)
            except PlantedError:
                pass
            else:
                subject.fail(
                    "it went on where the model raised an error: let errors of the backend through"
                )
            _expect_clean(subject, before, " when the model raises an error")


def _expect_clean(subject: Subject, before: dict[str, object], when: str) -> None:
    after = footprint(subject.backend)
    places = sorted(before.keys() | after.keys())
    left = [place for place in places if before.get(place) != after.get(place)]
    subject.expect(
        not left,
        f"it leaves something behind on the model{when} ({', '.join(left[:3])}): take hooks away "
        "in a finally block, or by a context manager",
    )


def answers_about_the_words_asked_for(subject: Subject) -> None:
    """``words`` decides on the players; unknown and overlapping words are refused."""
    trajectory = subject.specimens.plain
    phrase, (first, _) = phrase_of(trajectory)
    maps = subject.ask(trajectory, [phrase])
    expected = partition(PromptWords.of(trajectory.tokens), [phrase])
    subject.expect(
        maps.players == expected,
        f"asked for words=[{phrase!r}], it answers about {words_in(maps.players)}, and should "
        f"about {words_in(expected)}: a phrase that is asked for is one player",
    )
    one, _, another, *_ = words_of(trajectory)
    group: list[WordPlace] = [slice(word.start, word.stop) for word in (one, another)]
    maps = subject.ask(trajectory, [group])
    expected = partition(PromptWords.of(trajectory.tokens), [group])
    subject.expect(
        maps.players == expected,
        f"asked for {one.text!r} and {another.text!r} as one, words=[[..., ...]], it answers about "
        f"{words_in(maps.players)}, and should about {words_in(expected)}",
    )
    repeated = subject.specimens.repeated
    twice = next(word for word in words_of(repeated) if word.occurrence == 1)
    maps = subject.ask(repeated, [(twice.text, 1)])
    subject.expect(
        twice in maps.players, f"asked for ({twice.text!r}, 1), it has no map of that occurrence"
    )
    overlapping = [phrase, first.text]
    try:
        subject.attributor.attribute(trajectory, overlapping)
    except ValueError:
        pass
    else:
        subject.fail(f"asked for {overlapping}, which overlap, it must raise ValueError")
    try:
        maps = subject.attributor.attribute(trajectory, [_UNKNOWN])
    except KeyError:
        return
    subject.expect(
        # A method of open vocabulary has a map of such a word, and says that it is no prompt's.
        [word.text for word in maps.outside] == [_UNKNOWN],
        f"asked for {_UNKNOWN!r}, which isn't in the prompt, it must raise KeyError",
    )


def merges_as_it_says(subject: Subject) -> None:
    """Words become phrases, and tokens words, as ``merge`` says.

    Without ``by_token`` a phrase asked for as one player may have any map, but for one: what
    another merge than the method's own makes of its words' maps.
    """
    method = subject.attributor
    others = set(get_args(Merge)) - {method.merge}
    for trajectory in (subject.specimens.plain, subject.specimens.pieces):
        phrase, parts = phrase_of(trajectory)
        maps = subject.answer(trajectory)
        expected = _merged(maps, parts, method.merge)
        _expect_close(
            subject,
            np.asarray(maps[phrase]),
            expected,
            f"its map of {phrase!r} is not the {method.merge} of its words' maps, as merge="
            f"{method.merge!r} says",
        )
        if method.by_token:
            _expect_close(
                subject,
                np.asarray(subject.ask(trajectory, [phrase])[phrase]),
                expected,
                f"asked for as one player, {phrase!r} has another map than the {method.merge} of "
                f"its words' maps, though by_token=True says that each token counts by itself: "
                f"merge tokens by {method.merge}, or say by_token=False",
            )
        else:
            asked = np.asarray(subject.ask(trajectory, [phrase])[phrase])
            others = {one for one in others if _is_merge(asked, maps, parts, one, method.merge)}
    if method.by_token:
        _check_tokens(subject)
    elif others:
        subject.fail(
            f"asked for as one player, phrases have exactly the {min(others)} of their words' "
            f"maps, though it says merge={method.merge!r}: say merge={min(others)!r} and "
            f"by_token=True, or merge tokens by {method.merge}"
        )


def _is_merge(
    asked: npt.NDArray[Any], maps: AttributionMaps, parts: Sequence[Word], this: Merge, own: Merge
) -> bool:
    """Return whether a phrase's map is, to rounding, this merge of its words' and not the own
    one."""
    scale = float(np.abs(asked).max())
    # Where only one of the words has a map, several merges are the same.
    if min(float(np.abs(maps.at(part)).max()) for part in parts) <= _ROUNDING * scale:
        return False
    off = {m: float(np.abs(asked - _merged(maps, parts, m)).max()) for m in (this, own)}
    return off[this] <= _ROUNDING * scale < off[own]


def _check_tokens(subject: Subject) -> None:
    """Check the same image under a prompt with a blank inside a word: each token is then a word."""
    trajectory = subject.specimens.pieces
    word = max(words_of(trajectory), key=lambda one: len(one.tokens))
    cut = trajectory.tokens.offsets[word.tokens[1]][0]
    spaced = replace(trajectory, prompt=_blank_at(trajectory.prompt, cut))
    spaced = replace(spaced, tokens=_blank_in(trajectory.tokens, cut))
    pieces = [w for w in words_of(spaced) if set(w.tokens) <= set(word.tokens)]
    maps = subject.ask(spaced)
    _expect_close(
        subject,
        np.asarray(subject.answer(trajectory).at(word)),
        _merged(maps, pieces, subject.attributor.merge),
        f"its map of {word.text!r}, of {len(word.tokens)} tokens, is not the "
        f"{subject.attributor.merge} of its tokens' maps, as by_token=True says: merge tokens by "
        f"{subject.attributor.merge}, or say by_token=False",
    )


def _blank_at(text: str, place: int) -> str:
    return f"{text[:place]} {text[place:]}"


def _blank_in(tokens: Tokens, cut: int) -> Tokens:
    offsets = tuple((a + (a >= cut > 0), b + (b > cut)) if b else (a, b) for a, b in tokens.offsets)
    return replace(tokens, prompt=_blank_at(tokens.prompt, cut), offsets=offsets)


def _merged(maps: AttributionMaps, parts: Sequence[Word], merge: Merge) -> npt.NDArray[Any]:
    stack = np.stack([np.asarray(maps.at(part), np.float64) for part in parts])
    if merge == "mean":
        merged: npt.NDArray[Any] = np.average(stack, axis=0, weights=[len(p.tokens) for p in parts])
    elif merge == "sum":
        merged = stack.sum(0)
    else:
        merged = root_sum_square(stack, maps.provenance.probes)
    return merged


def _expect_close(
    subject: Subject,
    found: npt.NDArray[Any],
    expected: npt.NDArray[Any],
    what: str,
    rounding: float = _ROUNDING,
) -> None:
    scale = max(float(np.abs(found).max()), float(np.abs(expected).max()))
    worst = float(np.abs(found - expected).max())
    subject.expect(
        worst <= rounding * scale, f"{what} (they differ by {worst:.3g}, of {scale:.3g})"
    )


def answers_lists_one_by_one(subject: Subject) -> None:
    """A list of images gives the list of what each gives alone."""
    batch = subject.specimens.batch
    alone = [subject.answer(trajectory) for trajectory in batch]
    together = subject.attributor.attribute(batch)
    subject.expect(
        isinstance(together, list) and len(together) == len(batch),
        f"of a list of {len(batch)} trajectories it gives {type(together).__name__}, and should "
        "give a list of as many AttributionMaps",
    )
    for trajectory, one, two in zip(batch, alone, together, strict=True):
        what = (
            f"{trajectory.prompt!r} has other maps in a list than alone: an image's maps must not "
            "depend on its company"
        )
        subject.expect(one.players == two.players, what)
        # To the bit, but where images share passes: gramcol, which divides by small deviations
        # over tokens, was off by 1.2e-4 then, the others by less than 1e-4.
        rounding = _OF_SHARED_PASSES.get(subject.backend.dtype, _ROUNDING)
        if not subject.backend.shares_passes:
            rounding = 0.0
        _expect_close(subject, two.data.values, one.data.values, what, rounding)
        costs = one.provenance.forward_equivalents, two.provenance.forward_equivalents
        subject.expect(
            costs[0] == costs[1],
            f"{trajectory.prompt!r} costs {costs[1]} forward-equivalents in a list and {costs[0]} "
            "alone: each image's cost is its own",
        )


def _check_case(subject: Subject, trajectory: Trajectory) -> None:
    _check_shape(subject, trajectory)
    _check_finite(subject, trajectory)
    maps = subject.answer(trajectory)
    for word in words_of(trajectory):
        subject.expect(
            maps.at(word).shape == trajectory.grid, f"{word.text!r} has a map of another shape"
        )


def answers_about_one_word(subject: Subject) -> None:
    """A prompt of one word."""
    _check_case(subject, subject.specimens.one_word)


def answers_about_repeated_words(subject: Subject) -> None:
    """A prompt with a word twice."""
    _check_case(subject, subject.specimens.repeated)


def answers_about_words_of_several_tokens(subject: Subject) -> None:
    """A prompt with a word that the tokenizer cuts up."""
    _check_case(subject, subject.specimens.pieces)


def answers_about_oblong_images(subject: Subject) -> None:
    """Height and width are not mixed up."""
    _check_case(subject, subject.specimens.oblong)


def answers_without_guidance(subject: Subject) -> None:
    """An image drawn with guidance scale 1 has no negative embeddings."""
    _check_case(subject, subject.specimens.unguided)


def counts_its_cost(subject: Subject) -> None:
    """The provenance says what the model really did."""
    backend = subject.backend
    for trajectory in (subject.specimens.plain, subject.specimens.one_word):
        before = replace(backend.evaluations)
        with Audit(backend) as audit:
            provenance = subject.ask(trajectory).provenance
        counted = backend.evaluations - before
        subject.expect(
            not audit.behind,
            f"it runs {', '.join(sorted(set(audit.behind)))} of the model behind the backend's "
            "back: ask the backend's own primitives (denoise, attention, ...), which count",
        )
        said = Evaluations(provenance.forward, provenance.jvp, provenance.vjp)
        subject.expect(
            said == audit.spent == counted,
            f"its maps say that they cost {said}, the backend's counters {counted}, and the model "
            f"did {audit.spent}: call the primitives without an underscore, and leave "
            "backend.evaluations alone",
        )
        subject.expect(
            provenance.forward_equivalents == said.forward_equivalents,
            f"its maps say {provenance.forward_equivalents} forward-equivalents, and {said} are "
            f"{said.forward_equivalents}",
        )
        missing = audit.used - subject.attributor.needs
        subject.expect(
            not missing,
            f"it asks the backend for {', '.join(sorted(missing))}, which it doesn't name in needs",
        )


def foresees_its_cost(subject: Subject) -> None:
    """``cost`` says before what is counted afterwards, and a budget is kept to."""
    specimens, method = subject.specimens, subject.attributor
    plain = specimens.plain
    phrase, _ = phrase_of(plain)
    for trajectory, words in (
        (plain, None),
        (plain, [phrase]),
        (specimens.one_word, None),
        (specimens.unguided, None),
    ):
        size = method.size_of(trajectory, words)
        try:
            foreseen = method.cost(size)
        except NotImplementedError as error:
            subject.fail(f"{error}: say what attribute spends on an image of a given size")
        maps = subject.ask(trajectory, words) if words else subject.answer(trajectory)
        provenance = maps.provenance
        spent = Evaluations(provenance.forward, provenance.jvp, provenance.vjp)
        subject.expect(
            foreseen == spent,
            f"cost() foresees {foreseen} for {trajectory.prompt!r} ({size}), and attribute spends "
            f"{spent}: the two must be equal",
        )
    _check_budget(subject, method, plain)


def _check_budget(subject: Subject, method: TextImageAttributor, trajectory: Trajectory) -> None:
    size = method.size_of(trajectory)
    least = method
    if method.effort is not None:
        least = method.with_options(**{method.effort: method.least_effort(size)})
    cheapest = least.cost(size).forward_equivalents
    if cheapest > 1:
        try:
            method.within_budget(cheapest - 1, size)
        except BudgetError:
            pass
        else:
            subject.fail(
                f"within_budget({cheapest - 1}) should raise BudgetError: the least is {cheapest}"
            )
    budget = max(1, cheapest + cheapest // 2)
    spent = subject.ask(trajectory, attributor=method.within_budget(budget, size)).provenance
    subject.expect(
        spent.forward_equivalents <= budget,
        f"within a budget of {budget} forward-equivalents it spends {spent.forward_equivalents}",
    )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    describes_itself,
    leaves_the_trajectory_alone,
    leaves_no_hooks,
    gives_a_map_a_player,
    gives_finite_values,
    answers_the_same_again,
    answers_about_the_words_asked_for,
    cuts_up_the_whole_context,
    is_honest_about_its_sign,
    merges_as_it_says,
    answers_about_one_word,
    answers_about_repeated_words,
    answers_about_words_of_several_tokens,
    answers_about_oblong_images,
    answers_without_guidance,
    answers_lists_one_by_one,
    counts_its_cost,
    foresees_its_cost,
    has_plain_settings,
)
