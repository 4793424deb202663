"""The commands, as a user types them, on a fake model."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import wordlight
import wordlight.backends.loading
from tests.comparisons.fakes import FakeBackend, Planted, scenes_by_prompt
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.testing.model import ToyModel
from wordlight.comparisons.cli.attribute import _slug
from wordlight.comparisons.cli.main import build_parser, main
from wordlight.comparisons.studies import STUDIES

PROMPT = next(p for p, s in scenes_by_prompt().items() if len(s.groups) == 2 and s.full_stop)


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """The fake model in place of any that is asked for; a folder is no model of its kind."""
    fake = FakeBackend()

    def load(model, **_where):
        if model != "scenes":
            raise ValueError(f"{model} is no model")
        return fake

    monkeypatch.setattr("wordlight.backends.loading.load", load)
    return fake


def refused(capsys, *argv):
    """The one line on stderr of a command that must be refused."""
    status = main([str(part) for part in argv])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    *before, line = captured.err.splitlines()
    # Messages of what was done before, without any traceback.
    assert all(b.startswith(("loading", "drawing", "asking")) for b in before)
    assert line.startswith("wordlight: error: ")
    return line


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_attribute_writes_the_image_an_overlay_a_word_and_the_maps(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["attribute", PROMPT, "--method", "random", "-o", str(out), "--seed", "3"]) == 0
    captured = capsys.readouterr()
    maps = AttributionMaps.load(out / "maps.safetensors")
    assert maps.prompt == PROMPT
    assert maps.provenance.seed == 3
    overlays = [name for name in files(out) if name.startswith("overlay")]
    assert len(overlays) == len(maps.words)
    assert overlays[0] == f"overlay-01-{maps.words[0].text}.png"
    # The full stop is a word of the prompt with no letter in it.
    assert overlays[-1].endswith("-mark.png")
    assert files(out) == sorted(
        ["attribute.json", "image.png", "maps.safetensors", "viewer.html", *overlays]
    )
    assert captured.out.splitlines() == [
        str(out / name) for name in ("viewer.html", "image.png", *overlays, "maps.safetensors")
    ]
    with Image.open(out / "image.png") as image:
        assert np.array_equal(np.asarray(image), maps.image)


def test_attribute_shows_the_words_that_are_asked_for(tmp_path, capsys):
    prompt = "a red circle and a blue circle"
    arguments = ["--method", "random", "-o", str(tmp_path), "--json", "--quiet"]
    main(["attribute", prompt, *arguments])
    capsys.readouterr()
    assert main(["attribute", prompt, *arguments, "--word", "circle", "--word", "blue circle"]) == 2
    captured = capsys.readouterr()
    # "blue circle" and its "circle" can't both be players of their own.
    assert "overlaps" in captured.err
    assert main(["attribute", prompt, *arguments, "--word", "Circle", "--word", "<end>"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    assert [(o["word"], o["occurrence"]) for o in told["methods"][0]["overlays"]] == [
        ("circle", 0),
        ("circle", 1),
        ("<end>", 0),
    ]
    # The overlays of the run before are gone.
    assert [n for n in files(tmp_path) if n.startswith("overlay")] == [
        "overlay-01-circle.png",
        "overlay-02-circle.png",
        "overlay-03-end.png",
    ]


def test_attribute_takes_words_from_outside_the_prompt(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_model, **_where: ToyModel())
    ask = [
        "attribute",
        "a red circle and a red square",
        "--sampling-steps",
        "2",
        "--quiet",
        "--json",
    ]
    ask += ["-o", str(tmp_path), "--method", "open-vocabulary"]
    assert main([*ask, "--word", "blue  dog", "--word", "red", "--word", "<pad>"]) == 0
    (method,) = json.loads(capsys.readouterr().out)["methods"]
    assert [(o["word"], o["occurrence"]) for o in method["overlays"]] == [
        ("blue dog", 0),
        ("red", 0),
        ("red", 1),
        ("<pad>", 0),
    ]
    maps = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert [word.text for word in maps.outside] == ["blue dog"]
    assert np.ptp(np.asarray(maps["blue dog"])) > 0
    overlays = [name for name in files(tmp_path) if name.startswith("overlay")]
    assert overlays[0] == "overlay-01-blue-dog.png"
    # It costs what it costs without; two steps are two forward passes.
    assert main([*ask, "--word", "dog", "--budget", "2"]) == 0
    capsys.readouterr()
    # Another method beside it has no map of such a word.
    assert main([*ask, "--method", "daam", "--word", "dog"]) == 2
    assert "daam: 'dog' is not in the prompt; its words are a, red" in capsys.readouterr().err
    assert main([*ask, "--word", "dog", "--word", "DOG"]) == 2
    assert "asked for twice" in capsys.readouterr().err
    assert main([*ask, "--word", " "]) == 2
    assert "it is empty" in capsys.readouterr().err


def test_attribute_explains_the_negative_prompts_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_model, **_where: ToyModel())
    ask = ["attribute", "a red circle", "--sampling-steps", "2", "--quiet", "--json"]
    ask += ["-o", str(tmp_path), "--method", "daam", "--words-of", "negative"]
    assert main([*ask, "--guidance", "5", "--negative-prompt", "a blue dog"]) == 0
    summary = json.loads(capsys.readouterr().out)
    (method,) = summary["methods"]
    assert [o["word"] for o in method["overlays"]] == ["a", "blue", "dog"]
    assert method["settings"]["words_of"] == "negative"
    maps = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert maps.prompt == "a blue dog"
    assert "Negative prompt" in (tmp_path / "viewer.html").read_text(encoding="utf-8")
    assert main(ask) == 2
    assert "needs a --negative-prompt with words" in capsys.readouterr().err
    assert main([*ask, "--guidance", "1", "--negative-prompt", "a blue dog"]) == 2
    assert "no negative branch" in capsys.readouterr().err


def test_attribute_with_options_of_a_method(tmp_path, capsys):
    ask = ["attribute", PROMPT, "--quiet", "--json", "-o", str(tmp_path)]
    assert main([*ask, "--method", "random,seed=7", "--method", "center,width=0.1"]) == 0
    told = json.loads(capsys.readouterr().out)["methods"]
    assert told[0]["settings"]["seed"] == 7
    assert told[1]["settings"]["width"] == 0.1
    for method, says in (
        ("random,sed=7", "random has no option 'sed'; it has seed"),
        ("center,width=wide", "width must be a number, not 'wide'"),
        ("random,seed", "a method is NAME or NAME,OPTION=VALUE,..., not 'random,seed'"),
        ("random,seed=1,seed=2", "says seed twice"),
    ):
        assert says in refused(capsys, *ask, "--method", method)
    both = ["--method", "shapley,n_samples=3", "--budget", "100"]
    assert "n_samples of shapley is what the budget decides" in refused(capsys, *ask, *both)
    again = ["--method", "random", "--method", "random,seed=1"]
    assert "random can be asked once" in refused(capsys, *ask, *again)


def test_attribute_by_several_methods(tmp_path, capsys):
    methods = ["--method", "random", "--method", "uniform"]
    arguments = ["-o", str(tmp_path), "--json", "--quiet", "--word", "red"]
    assert main(["attribute", "a red circle", *methods, *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [answer["method"] for answer in told["methods"]] == ["random", "uniform"]
    assert files(tmp_path) == [
        "attribute.json",
        "image.png",
        "maps-random.safetensors",
        "maps-uniform.safetensors",
        "overlay-01-red-random.png",
        "overlay-01-red-uniform.png",
        "viewer.html",
    ]
    assert main(["attribute", "a red circle", *methods[:2], *arguments]) == 0
    assert files(tmp_path) == [
        "attribute.json",
        "image.png",
        "maps.safetensors",
        "overlay-01-red.png",
        "viewer.html",
    ]


def test_attribute_deletes_and_replaces_nothing_but_its_own(tmp_path, capsys):
    ask = ["attribute", "a red circle", "--method", "random", "--quiet", "-o", str(tmp_path)]
    own = ["overlay-01-mine.png", "overlay-99-x.png", "maps-old.safetensors", "notes.txt"]
    for name in own:
        (tmp_path / name).write_bytes(b"mine")
    assert main(ask) == 0
    before = set(files(tmp_path))
    assert main([*ask, "--word", "red", "--masks"]) == 0
    assert all((tmp_path / name).read_bytes() == b"mine" for name in own)
    # Its own files of the run before that it doesn't write again are gone.
    assert before - set(files(tmp_path)) == {
        "overlay-01-a.png",
        "overlay-02-red.png",
        "overlay-03-circle.png",
    }
    # A list from elsewhere names no other file of the folder, and none outside it.
    listing = json.loads((tmp_path / "attribute.json").read_text())
    outside = tmp_path.parent / f"{tmp_path.name}-overlay-01-x.png"
    outside.write_bytes(b"mine")
    listing["files"] += [
        "notes.txt",
        f"../{outside.name}",
        str(outside),
        "a/../maps-old.safetensors",
    ]
    (tmp_path / "attribute.json").write_text(json.dumps(listing))
    assert main([*ask, "--word", "circle"]) == 0
    assert outside.read_bytes() == b"mine"
    assert all((tmp_path / name).read_bytes() == b"mine" for name in own)
    capsys.readouterr()
    for name in ("image.png", "viewer.html", "overlay-02-red.png", "attribute.json"):
        folder = tmp_path / f"other-{name}"
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        line = refused(capsys, *ask[:-1], folder)
        assert f"holds {name}, which wordlight attribute did not write there" in line
        assert files(folder) == [name]
        assert (folder / name).read_bytes() == b"mine"


def test_attribute_writes_masks(tmp_path, capsys):
    ask = ["attribute", "a red circle", "--method", "random", "--quiet", "-o", str(tmp_path)]
    assert main([*ask, "--masks", "--threshold", "0.7", "--word", "circle", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (mask,) = told["methods"][0]["masks"]
    assert mask["file"] == str(tmp_path / "mask-01-circle.png")
    maps = AttributionMaps.load(tmp_path / "maps.safetensors")
    with Image.open(mask["file"]) as picture:
        assert picture.mode == "L"
        assert (np.asarray(picture) == 255 * maps["circle"].mask(0.7)).all()
    assert main([*ask, "--threshold", "0.7"]) == 2
    assert "ask for them with --masks" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*ask, "--threshold", "40"])
    assert "must be from 0 to 1" in capsys.readouterr().err


def test_attribute_makes_a_film_of_steps(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_model, **_where: ToyModel())
    ask = ["attribute", "a red circle", "--sampling-steps", "3", "--quiet", "-o", str(tmp_path)]
    assert main([*ask, "--method", "occlusion", "--word", "red", "--json", "--film"]) == 0
    told = json.loads(capsys.readouterr().out)["methods"][0]
    maps = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert maps.data.sizes["step"] == 3
    with Image.open(told["films"][0]["file"]) as film:
        assert film.n_frames == 3
    # Step by step it costs what it costs at once, and its mean is what is given at once.
    assert main([*ask, "--method", "occlusion", "--word", "red", "--json"]) == 0
    at_once = json.loads(capsys.readouterr().out)["methods"][0]
    assert at_once["forward_equivalents"] == told["forward_equivalents"] > 0
    whole = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert np.allclose(np.asarray(whole["red"]), np.asarray(maps["red"]), atol=1e-5)
    assert not list(tmp_path.glob("film-*"))
    assert "no film" in refused(capsys, *ask, "--film", "--method", "uniform")


def test_attribute_fits_a_token_to_a_mask(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_model, **_where: ToyModel())
    method = ["--method", "open-vocabulary,scores=raw"]
    ask = ["attribute", "a red circle", "--quiet", "-o", str(tmp_path / "out"), "--word", "dog"]
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "dog.png")
    fit = ["--fit", f"dog={tmp_path / 'dog.png'}"]
    assert main([*ask, *method, *fit, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["methods"][0]["settings"]["tokens"]["dog"]
    inside = mask[::4, ::4] > 0
    fitted = np.asarray(AttributionMaps.load(tmp_path / "out" / "maps.safetensors")["dog"])
    assert fitted.shape == inside.shape
    assert np.mean(fitted[inside][:, None] > fitted[~inside]) > 0.8
    # The file is for other images, and is an own file of the folder.
    given = f"open-vocabulary,scores=raw,tokens={tmp_path / 'out' / 'tokens.safetensors'}"
    other = ["attribute", "two dogs", "--quiet", "-o", str(tmp_path / "there"), "--word", "dog"]
    assert main([*other, "--method", given, "--json"]) == 0
    used = json.loads(capsys.readouterr().out)["methods"][0]["settings"]["tokens"]["dog"]
    assert np.allclose(used, told)
    assert main([*ask, *method]) == 0
    assert not (tmp_path / "out" / "tokens.safetensors").exists()
    capsys.readouterr()
    Image.fromarray(mask[:8]).save(tmp_path / "low.png")
    for more, says in (
        ([*method, "--fit", "dog"], "--fit takes WORD=MASK"),
        ([*method, *fit, *fit], "--fit names 'dog' twice"),
        (fit, "--fit is for open-vocabulary"),
        ([*method, "--fit", f"cat={tmp_path / 'dog.png'}"], "ask for the word, too"),
        ([*method, "--fit", f"dog={tmp_path / 'no.png'}"], "no.png"),
        ([*method, "--fit", f"dog={tmp_path / 'low.png'}"], "is 24x8 pixels, and the image 24x16"),
    ):
        assert says in refused(capsys, *ask, *more)


def test_attribute_explains_a_given_picture(tmp_path, capsys, monkeypatch):
    seen = []

    class Seeing(ToyModel):
        def _invert(self, image, prompt, **options):
            seen.append(image)
            return super()._invert(image, prompt, **options)

    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_model, **_where: Seeing())
    # A photograph that is kept lying on its side: EXIF says that its left is its bottom.
    upright = np.zeros((60, 40, 3), np.uint8)
    upright[:30] = 255
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(photo, exif=exif, quality=95)
    ask = ["attribute", "a red circle", "--method", "daam", "--sampling-steps", "2", "--quiet"]
    ask += ["--image", photo, "--masks", "--word", "red", "-o", tmp_path / "out"]
    assert main(list(map(str, ask))) == 0
    height, width = seen[0].shape[:2]
    facts = ToyModel().sampling
    assert height > width
    assert height * width == pytest.approx(facts.height * facts.width, rel=0.3)
    assert seen[0][: height // 3].mean() > 240 > 15 > seen[0][-height // 3 :].mean()
    with Image.open(tmp_path / "out" / "mask-01-red.png") as mask:
        assert mask.size == (40, 60)
    capsys.readouterr()
    assert main(list(map(str, [*ask, "--height", facts.height, "--width", facts.height * 2]))) == 0
    assert seen[1].shape[:2] == (facts.height, 2 * facts.height)
    capsys.readouterr()
    assert "leave it out where --image is given" in refused(capsys, *ask, "--guidance", "3")
    ask[ask.index(photo)] = tmp_path / "none.jpg"
    assert "there is no" in refused(capsys, *ask)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("circle", "circle"),
        ("red circle", "red-circle"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\con", "c-con"),
        ("Straße", "straße"),
        ("?", "mark"),
        ("x" * 300, "x" * 40),
    ],
)
def test_words_in_file_names_name_no_other_folder(text, slug):
    assert _slug(text) == slug


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["", "--method", "random"], "empty"),
        (["   ", "--method", "random"], "empty"),
        (["red " * 99, "--method", "random"], "the context holds"),
        (
            ["a red circle", "--method", "random", "--word", "square"],
            "its words are a, red, circle",
        ),
        (["a red circle", "--method", "dam"], "did you mean daam"),
        (["a red circle", "--method", "daam"], "needs attention"),
        (["a red circle", "--method", "shuffled-word"], "wordlight compare"),
        (["a red circle", "--model", "nowhere/at/all"], "no model"),
    ],
)
def test_attribute_refuses_bad_input_and_leaves_nothing(tmp_path, capsys, arguments, says):
    out = tmp_path / "new" / "out"
    assert says in refused(capsys, "attribute", *arguments, "-o", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["attribute", PROMPT, "--method", "random"], ["compare"]])
def test_a_folder_that_can_not_be_written_is_noticed_before_the_work(
    tmp_path, capsys, backend, command
):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    methods = ["--method", "uniform"] if command == ["compare"] else []
    assert "can't write into" in refused(capsys, *command, *methods, "--out", out)
    assert backend.drawn == []


def test_compare_prints_the_table_and_resumes(tmp_path, capsys, backend):
    command = ["compare", "-n", "3", "--calibration", "4", "--out", str(tmp_path)]
    command += ["--method", "uniform", "--method", "center"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "mIoU@best" in captured.out
    assert re.search(r"making maps: (\d+) of \1 maps", captured.err)
    assert captured.out.startswith((tmp_path / "table.txt").read_text())
    drawn = len(backend.drawn)
    assert main([*command, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(backend.drawn) == drawn
    rows = json.loads(captured.out)
    assert {row["method"] for row in rows} == {"uniform", "center"}
    assert {"framework", "method", "metric", "mean", "low", "high", "n"} <= set(rows[0])
    assert "n was 3, now 2" in refused(capsys, *command, "-n", "2")


def test_compare_takes_precomputed_maps(tmp_path, capsys, backend):
    first = ["compare", "-n", "3", "--calibration", "4", "--quiet", "--method", "uniform"]
    assert main([*first, "--out", str(tmp_path / "one")]) == 0
    from wordlight.backends.trajectory import Trajectory

    for path in (tmp_path / "one" / "samples").iterdir():
        maps = Planted(backend).attribute(Trajectory.load(path))
        maps.save(tmp_path / "maps" / path.name)
    capsys.readouterr()
    second = [*first, "--maps", f"mine={tmp_path / 'maps'}", "--out", str(tmp_path / "two")]
    assert main([*second, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    best = {row["method"]: row["mean"] for row in rows if row["metric"] == "miou@best"}
    assert best["mine"] > 0.8 > best["uniform"]
    (tmp_path / "maps" / "scenes-test-0001.safetensors").unlink()
    assert "scenes-test-0001" in refused(capsys, *second)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "shuffle-word"], "did you mean shuffled-word"),
        (["--method", "occlusion", "--maps", "mine"], "NAME=FOLDER"),
        (["--method", "uniform", "--maps", "mine=nowhere"], "is no folder"),
        (["--method", "uniform", "--maps", "../x=."], "can't name a method"),
        (["--method", "daam"], "needs attention"),
        (["--model", "nowhere"], "no model"),
    ],
)
def test_compare_refuses_bad_input_and_leaves_nothing(tmp_path, capsys, arguments, says):
    assert says in refused(capsys, "compare", *arguments, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compare", "-n", "0"],
        ["compare", "-n", "many"],
        ["compare", "--seed", "-1"],
        ["compare", "--framework", "tensorflow"],
        ["explain"],
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err.splitlines()[-1]


def test_methods_and_models_are_listed(capsys):
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    facts = {"name", "question", "family", "needs", "paper", "options"}
    assert all(set(row) == facts and row["question"] for row in rows)
    assert {"daam", "input-x-gradient", "occlusion", "shuffled-word"} <= {r["name"] for r in rows}
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert "2210.04885" in listed
    assert "daam                       Where does the image look at the word while" in listed
    assert max(map(len, listed.splitlines())) <= 100
    assert main(["models", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert names == ["scenes", "things", "things-dit"]
    assert main(["models"]) == 0
    assert "Hub id" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == wordlight.__version__


@pytest.mark.parametrize("command", [[], ["attribute"], ["compare"], ["methods"], ["models"]])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "usage: wordlight" in capsys.readouterr().out


def test_an_output_that_nobody_reads_is_no_error(tmp_path):
    code = "import sys; from wordlight.comparisons.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" methods --json | head -c 1'],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "["
    assert done.stderr == ""


def test_attribute_without_a_prompt_or_a_picture_is_refused(capsys):
    assert "PROMPT is missing" in refused(capsys, "attribute")


def test_a_picture_is_drawn_as_it_was_asked_for(tmp_path, capsys, monkeypatch):
    asked = {}

    def load(_model, **how):
        asked.update(how)
        return ToyModel()

    monkeypatch.setattr("wordlight.backends.loading.load", load)
    ask = ["attribute", "a red circle", "--method", "daam", "--quiet", "-o"]
    former = [*ask, str(tmp_path / "former"), "--steps", "3"]
    ask += [str(tmp_path), "--sampling-steps", "5", "--guidance", "2.5", "--dtype", "float64"]
    assert main(ask) == 0
    assert asked["dtype"] == "float64"
    provenance = AttributionMaps.load(tmp_path / "maps.safetensors").provenance
    # One forward pass a step.
    assert provenance.forward == 5
    # The flag's name before.
    assert main(former) == 0
    assert AttributionMaps.load(tmp_path / "former" / "maps.safetensors").provenance.forward == 3
    capsys.readouterr()
    for flag, value, says in (
        ("--guidance", "much", "'much' is no number"),
        ("--sampling-steps", "0", "must be 1 or more"),
        ("--dtype", "float8", "invalid choice"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*ask, flag, value])
        assert says in capsys.readouterr().err
    for value in ("-1", "nan", "inf"):
        assert "guidance must be a number, 0 or more" in refused(capsys, *ask, "--guidance", value)
    assert "steps must be 1 to 1000" in refused(capsys, *ask, "--sampling-steps", "1001")


def test_steps_that_images_lack_are_refused_before_one_is_drawn(tmp_path, capsys, monkeypatch):
    class Drawing(ToyModel):
        def _sample(self, *_given, **_how):
            raise AssertionError("an image was drawn")

    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_, **__: Drawing())
    says = "the trajectory has 3 steps, not 99"
    for command in (["attribute", "a dog"], ["compare", "-n", "1", "--calibration", "1"]):
        asked = [*command, "--method", "daam,steps=99", "-o", str(tmp_path / "out")]
        assert says in refused(capsys, *asked, "--quiet")
    table = ["compare", "--method", "uniform", "--steps", "4", "--quiet", "-o", tmp_path / "out"]
    assert "steps: the trajectory has 3 steps, not 4" in refused(capsys, *table)
    study = ["study", "influence", "-n", "1", "--steps", "4", "--quiet"]
    assert says.replace("99", "4") in refused(capsys, *study)


def test_what_needs_no_model_is_refused_before_one_is_loaded(tmp_path, capsys, monkeypatch):
    def load(*_given, **_how):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("wordlight.backends.loading.load", load)
    ask = ["compare", "-o", tmp_path / "out"]
    for given, says in (
        (["--method", "dam"], "did you mean daam"),
        (["--method", "daam,stepz=3"], "daam has no option 'stepz'; it has steps"),
        (["--method", "daam,steps=99", "--sampling-steps", "4"], "has 8 steps, not 99"),
        (["--metrics", "dise"], "did you mean dice"),
        (["--maps", "mine"], "--maps takes NAME=FOLDER, not 'mine'"),
    ):
        assert says in refused(capsys, *ask, *given)
    assert not (tmp_path / "out").exists()


def test_the_overview_reads_no_library():
    """Whose imports take seconds."""
    asked = (
        "import sys\n"
        "from wordlight.comparisons.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    sys.exit('numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("attribute", "study", "reproduce"):
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize("name", [kind.name for kind in STUDIES if hasattr(kind, "method")])
def test_a_study_of_no_method_ends_before_a_model_is_loaded(name, tmp_path, capsys):
    nowhere = str(tmp_path / "no model")
    model = [nowhere] if name == "parity" else ["--model", nowhere]
    assert main(["study", name, *model, "--method", "dam", "-o", str(tmp_path / "out")]) == 2
    assert "no method 'dam'; did you mean daam" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_option_that_a_method_lacks_is_told_before_a_model_is_loaded(tmp_path, capsys):
    asked = ["attribute", PROMPT, "--model", str(tmp_path / "no model"), "-o", str(tmp_path)]
    assert "daam has no option 'stepz'" in refused(capsys, *asked, "--method", "daam,stepz=3")


def test_a_port_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        main(["app", "--port", "65536"])
    assert "must be 65535 at most" in capsys.readouterr().err


def test_every_command_that_answers_can_answer_in_json():
    def leaves(parser, path=()):
        choices = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not choices:
            yield path, {option for a in parser._actions for option in a.option_strings}
        for name, child in (choices[0] if choices else {}).items():
            yield from leaves(child, (*path, name))

    options = dict(leaves(build_parser()))
    assert {path for path, has in options.items() if "--json" not in has} == {
        ("app",),
        ("completion",),
    }
    listings = {"report", "runs", "methods", "metrics"}
    assert {path[0] for path, has in options.items() if "--quiet" not in has} == {
        "app",
        "completion",
        *listings,
    }
