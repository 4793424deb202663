"""Methods are compared at one cost: as much effort as the budget pays for, for every image."""

from __future__ import annotations

import json

import pytest

from tests.comparisons.fakes import STEPS, FakeBackend, Laborious, Planted
from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.controls import Uniform
from wordlight.attribution.words import PromptWords
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.rows.budget import Workload, effort_of, fit
from wordlight.comparisons.store.cells import FORWARD_EQUIVALENTS

N, CALIBRATION, TABLE_STEPS = 6, 8, 4


@pytest.fixture(scope="module")
def backend():
    return FakeBackend()


@pytest.fixture(scope="module")
def longest(backend):
    """The most players that a prompt of the run has."""
    scenes = [
        scene
        for split, n in (("calibration", CALIBRATION), ("test", N))
        for scene in GeneratedScenes(backend, split, n).scenes
    ]
    return max(len(PromptWords.of(backend.tokenize(scene.prompt)).players) for scene in scenes)


def run(backend, methods, out, **options):
    options = {"n": N, "calibration": CALIBRATION, "progress": False, **options}
    return compare(backend, methods, out=out, **options)


def test_workload():
    backend = FakeBackend()
    backend.draw_with(steps=5, guidance_scale=2.0)
    work = Workload.of(backend, ["a dog", "a red dog", "a cat"])
    # Start, end and padding, and the words.
    assert work.lengths == ((5, 2), (6, 3))
    assert {(s.players, s.words, s.steps, s.drawing) for s in work.sizes(2)} == {
        (5, 2, 2, 10),
        (6, 3, 2, 10),
    }
    assert {s.steps for s in work.sizes(None)} == {5}
    assert {s.steps for s in work.sizes((0, 3, 4))} == {3}
    phrase = Workload.of(FakeBackend(), ["a red dog"], ["red dog"])
    assert phrase.lengths == ((5, 2),)
    assert phrase.sizes(None)[0].drawing == STEPS


def test_the_same_budget_for_all(backend, longest, tmp_path):
    budget = TABLE_STEPS * longest * 3 + 5
    methods = [Laborious(backend, steps=TABLE_STEPS), Planted(backend, steps=TABLE_STEPS)]
    found = run(
        backend, [*methods, "uniform", "center", "shuffled-word"], tmp_path / "out", budget=budget
    )
    efforts = {e.name: effort_of(e.method) for e in found.table_rows if not e.shuffled and e.method}
    assert efforts == {
        "laborious": "n_samples 3",
        "planted": "fixed cost",
        "uniform": "fixed cost",
        "center": "fixed cost",
    }
    # The shuffled row is of the fitted method's maps.
    (shuffled,) = [e for e in found.table_rows if e.name == "shuffled-word.laborious"]
    assert shuffled.method is not None
    assert shuffled.method.settings()["n_samples"] == 3
    costs = [
        AttributionMaps.load(path).provenance.forward_equivalents
        for path in (tmp_path / "out" / "maps").rglob("laborious.safetensors")
    ]
    assert len(costs) == N + CALIBRATION
    # The longest prompt spends all but 5 of it: another sample would cost more than that.
    assert max(costs) == budget - 5
    assert found.estimate("laborious", FORWARD_EQUIVALENTS).mean <= budget
    text = " ".join(found.text.split())
    assert f"budget: at most {budget} forward-equivalents an image" in text
    assert "laborious n_samples 3; of fixed cost: planted, uniform, center" in text
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["budget"] == budget
    assert summary["methods"]["laborious"]["n_samples"] == 3


def test_methods_that_can_not_be_had_are_all_named_before_any_work(longest, tmp_path):
    fresh = FakeBackend()

    class Silent(Planted):
        name = "silent"

        def cost(self, size):
            return TextImageAttributor.cost(self, size)

    with pytest.raises(ValueError, match="a budget of 3 ") as error:
        run(
            fresh,
            [
                Laborious(fresh, steps=TABLE_STEPS),
                Planted(fresh, steps=TABLE_STEPS),
                Silent(fresh, steps=TABLE_STEPS),
                Uniform(fresh),
            ],
            tmp_path / "out",
            budget=3,
        )
    assert str(error.value) == (
        "a budget of 3 forward-equivalents an image is not enough for "
        f"laborious (at least {TABLE_STEPS * longest}), planted (at least {TABLE_STEPS}), "
        "silent (doesn't say what it costs): leave them out, or take a budget of "
        f"{TABLE_STEPS * longest}"
    )
    assert not fresh.drawn
    assert not (tmp_path / "out").exists()


def test_effort_is_said_by_one_of_the_two(backend, tmp_path):
    wanted = [{"method": "shapley", "n_samples": 3}]
    with pytest.raises(ValueError, match="n_samples of shapley is what the budget decides"):
        run(backend, wanted, tmp_path / "out", budget=100)
    assert not (tmp_path / "out").exists()


def test_another_budget_is_another_run(backend, longest, tmp_path):
    methods = {"planted": Planted(backend, steps=TABLE_STEPS)}
    run(backend, methods, tmp_path / "out", budget=10)
    with pytest.raises(ValueError, match="budget was 10, now 11"):
        run(backend, methods, tmp_path / "out", budget=11)


def test_maps_from_files_that_cost_more(backend, tmp_path):
    run(backend, [Planted(backend, steps=TABLE_STEPS)], tmp_path / "first")
    folder = tmp_path / "files"
    folder.mkdir()
    for path in (tmp_path / "first" / "maps").rglob("planted.safetensors"):
        path.rename(folder / f"{path.parent.name}.safetensors")
    options = {"maps": {"mine": folder}}
    with pytest.raises(ValueError, match="mine costs 4 forward-equivalents for scenes-cal"):
        run(backend, ["uniform"], tmp_path / "dear", budget=3, **options)
    found = run(backend, ["uniform"], tmp_path / "cheap", budget=4, **options)
    assert found.estimate("mine", FORWARD_EQUIVALENTS).mean == 4


@pytest.fixture
def command_line(monkeypatch, backend):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_, **__: backend)
    known = {"laborious": Laborious, "planted": Planted, "uniform": Uniform}
    monkeypatch.setattr(registry, "available", lambda: known)


@pytest.mark.usefixtures("command_line")
def test_compare_at_a_budget(capsys, longest, tmp_path):
    out = ["-n", str(N), "--calibration", str(CALIBRATION), "--quiet", "--out"]
    methods = ["--method", "laborious", "--method", "uniform"]
    dear = ["compare", *methods, "--budget", "20", *out, str(tmp_path / "dear")]
    assert main(dear) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"laborious (at least {TABLE_STEPS * longest})" in captured.err
    assert not (tmp_path / "dear").exists()
    fits = ["compare", *methods, "--budget", str(2 * TABLE_STEPS * longest)]
    assert main([*fits, *out, str(tmp_path / "fits")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "laborious n_samples 2; of fixed cost: uniform" in printed


@pytest.mark.usefixtures("command_line")
def test_attribute_at_a_budget(capsys, backend, tmp_path):
    prompt = next(iter(GeneratedScenes(backend, "test", 1).scenes)).prompt
    players = len(PromptWords.of(backend.tokenize(prompt)).players)
    drawn = len(backend.drawn)
    ask = ["attribute", prompt, "--method", "laborious", "--json", "-o", str(tmp_path / "out")]
    least = STEPS * players
    assert main([*ask, "--budget", str(least - 1)]) == 2
    assert f"laborious (at least {least})" in capsys.readouterr().err
    assert len(backend.drawn) == drawn
    assert main([*ask, "--budget", str(4 * least + 1)]) == 0
    captured = capsys.readouterr()
    (method,) = json.loads(captured.out)["methods"]
    assert method["settings"]["n_samples"] == 4
    assert method["forward_equivalents"] == 4 * least
    assert "asking laborious (n_samples 4) about" in captured.err


def test_daam_of_all_steps_is_another_matter(backend):
    """Its row has another step set, so that it isn't of the table's cost."""
    from wordlight.attribution.testing.model import ToyModel
    from wordlight.comparisons.rows.row import build_rows

    model = ToyModel()
    work = Workload.of(model, ["a red circle"])
    assert [e.name for e in build_rows(model, ["daam"], {}, 2)] == ["daam", "daam-all-steps"]
    entries = build_rows(model, ["daam", "shapley"], {}, 2, 40, work)
    assert [e.name for e in entries] == ["daam", "shapley"]
    # Six players, two steps: 2 * (2 + 5 n) is at most 40.
    assert entries[1].settings()["n_samples"] == 3
    assert fit([("daam", registry.get("daam")(model, steps=2))], 2, work)


def test_a_method_that_wraps_another_has_its_steps():
    """What is wrapped looks at the run: at other steps it stands apart, like any method."""
    from wordlight.attribution import NoiseTunnel, Occlusion
    from wordlight.attribution.testing.model import ToyModel
    from wordlight.comparisons.rows.row import build_rows

    model = ToyModel()
    for steps, extra in ((2, False), (1, True), (None, True)):
        (entry,) = build_rows(model, [NoiseTunnel(Occlusion(model, steps=steps))], {}, 2)
        assert entry.extra == extra
