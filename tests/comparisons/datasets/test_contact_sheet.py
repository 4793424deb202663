"""``wordlight data check``: a sheet of images with their masks, and warnings of doubtful ones."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from tests.comparisons import dataset_files as files
from tests.comparisons.dataset_files import HEIGHT, WIDTH, save
from wordlight.backends.things.render import rendered
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.dataset import AnnotatedImage, Annotation
from wordlight.comparisons.results import contact_sheet
from wordlight.comparisons.results.contact_sheet import ContactSheet, doubtful_masks


def item(mask, prompt="a dog & $x_1$ sky", place="dog", sample="one"):
    image = np.full((*mask.shape, 3), 255, np.uint8)
    return AnnotatedImage(sample, prompt, image, (Annotation(place, mask),))


def square(size=64, share=0.25):
    mask = np.zeros((size, size), bool)
    mask[: int(size * share**0.5), : int(size * share**0.5)] = True
    return mask


def drawn(*items):
    sheet = ContactSheet()
    for one in items:
        sheet.add(one)
    return np.asarray(Image.open(io.BytesIO(sheet.png())).convert("RGB"))


def test_a_mask_is_shown_where_it_is():
    picture = drawn(item(square()))
    blue = (np.abs(picture.astype(int) - (0, 114, 178)).max(-1) < 6).nonzero()
    tinted = np.abs(picture.astype(int) - (153, 199, 224)).max(-1) < 6
    assert len(blue[0]) > 50
    assert tinted.sum() > 400
    # The mask is the upper left quarter: the tint lies above and left of the image's middle.
    assert tinted.nonzero()[0].max() < picture.shape[0] * 0.6
    assert tinted.nonzero()[1].max() < picture.shape[1] * 0.6


def test_many_items_are_not_all_shown(monkeypatch):
    monkeypatch.setattr(contact_sheet, "MOST_SHOWN", 3)
    few = drawn(*[item(square(8)) for _ in range(3)])
    many = drawn(*[item(square(8)) for _ in range(5)])
    assert np.array_equal(few, many)


def test_masks_of_nearly_all_and_nearly_nothing_are_doubtful():
    whole, dot = np.ones((64, 64), bool), np.zeros((64, 64), bool)
    whole[0, :3] = False
    dot[5, 5] = True
    assert doubtful_masks(item(square())) == []
    (all_of_it,) = doubtful_masks(item(whole, place=slice(2, 5)))
    assert "the mask of 'dog' covers 99.9% of the image" in all_of_it
    (nothing,) = doubtful_masks(item(dot, place=[slice(2, 5), slice(14, 17)]))
    assert "the mask of 'dog & sky' covers 1 of 4096 pixels" in nothing


def test_the_command_writes_the_sheet_and_warns(tmp_path, capsys):
    root = files.plain_folder(tmp_path / "set")
    inverted = np.full((HEIGHT, WIDTH), 255, np.uint8)
    inverted[0, 0] = 0
    save(root / "masks/1-dog.png", inverted)
    sheet = tmp_path / "sheet.png"
    line = ["data", "check", f"folder:{root}", "--quiet", "--json", "--sheet", str(sheet)]
    assert main(line) == 0
    told = capsys.readouterr()
    assert "warning: 1: the mask of 'dog' covers 99." in told.err
    assert json.loads(told.out)["doubtful_masks"] == 1
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"


def test_prompts_alone_have_no_sheet(tmp_path, capsys):
    (tmp_path / "items.jsonl").write_text('{"id": "a", "prompt": "a dog"}\n')
    line = ["data", "check", f"folder:{tmp_path}", "--quiet", "--sheet", str(tmp_path / "s.png")]
    assert main(line) == 2
    assert "there is no image to show" in capsys.readouterr().err
    assert not (tmp_path / "s.png").exists()


def test_a_sheet_of_another_kind_is_refused(tmp_path, capsys):
    assert main(["data", "check", "rendered-scenes", "--sheet", str(tmp_path / "s.jpg")]) == 2
    assert "the sheet is a PNG: call it" in capsys.readouterr().err


def test_a_segmenter_makes_the_masks_to_look_at(tmp_path, capsys):
    scene = rendered("test", 2)
    save(tmp_path / "set" / "0" / "output.png", scene.image)
    (tmp_path / "set" / "0" / "prompt.txt").write_text(scene.scene.prompt)
    asked = ["data", "check", f"coco-gen:{tmp_path / 'set'},unannotated=yes", "--quiet", "--json"]
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["words"] == {}
    sheet = tmp_path / "sheet.png"
    assert main([*asked, "--masks", "things", "--sheet", str(sheet)]) == 0
    facts = json.loads(capsys.readouterr().out)
    # "a large hot dog, a tie and a panda in front of a brick wall."
    assert facts["words"]["object"] >= 2
    assert facts["words"]["stuff"] == 1
    assert facts["without_masks"] == 1
    assert sheet.is_file()
