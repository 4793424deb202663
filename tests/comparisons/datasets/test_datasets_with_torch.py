"""The whole way on data sets, by the command line, with the embedded model."""

from __future__ import annotations

import json
import re

import numpy as np
from PIL import Image

from tests.comparisons.dataset_files import save, save_alpha
from wordlight.backends.scenes.render import rendered
from wordlight.backends.scenes.segment import segment
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.main import main

METHODS = ["--method", "daam", "--method", "uniform", "--steps", "2", "--quiet", "--json"]


def two_objects(count):
    """Scenes of the calibration split with one red and one blue thing, say."""
    found = []
    index = 0
    while len(found) < count:
        drawn = rendered("calibration", index)
        if [group.count for group in drawn.scene.groups] == [1, 1]:
            shapes = {group.shape for group in drawn.scene.groups}
            if len(shapes) == 2:
                found.append(drawn)
        index += 1
    return found


def shape_words(scene):
    return {
        place: word.text
        for place, word in enumerate(scene.words)
        if word.tag == "NOUN" and word.referent is not None and word.referent >= 0
    }


def scores(printed):
    return {(row["method"], row["metric"]): row["mean"] for row in json.loads(printed)}


def test_a_folder_of_photographs_is_inverted_and_judged(tmp_path, capsys):
    lines = []
    for index, drawn in enumerate(two_objects(3)):
        save(tmp_path / f"set/{index}.png", drawn.image)
        masks = {}
        for place, word in shape_words(drawn.scene).items():
            masks[word] = f"{index}-{word}.png"
            save(tmp_path / "set" / masks[word], drawn.word_masks()[place].astype(np.uint8) * 255)
        lines.append({"image": f"{index}.png", "prompt": drawn.scene.prompt, "masks": masks})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "set/items.jsonl").write_text(text + text[:40])
    command = ["compare", "--data", f"folder:{tmp_path / 'set'}", "-n", "2", "--calibration", "1"]
    out = ["-o", str(tmp_path / "out")]
    assert main([*command, *METHODS, *out]) == 2
    assert "items.jsonl, line 4 is no JSON, or was cut short" in capsys.readouterr().err
    assert main([*command, *METHODS, *out, "--skip-malformed"]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert re.match(r"wordlight: warning: 1 of .* skipped: items.jsonl, line 4 is no JSON", line)
    found = scores(said.out)
    assert found["daam", "ap"] > found["uniform", "ap"]
    kept = sorted((tmp_path / "out/samples").glob("*.safetensors"))
    assert len(kept) == 3
    for path in kept:
        trajectory = Trajectory.load(path)
        assert trajectory.noise_source == "noising"
        with Image.open(tmp_path / f"set/{path.stem}.png") as image:
            np.testing.assert_array_equal(trajectory.image, np.asarray(image))


def test_a_set_is_made_annotated_and_drawn_again(tmp_path, capsys):
    asked = [drawn.scene for drawn in two_objects(2)]
    captions = [
        {"id": index, "image_id": index, "caption": scene.prompt}
        for index, scene in enumerate(asked)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": captions}))
    root = tmp_path / "coco-gen"
    make = ["data", "make", "coco-gen", "--captions", str(tmp_path / "captions.json"), "-n", "2"]
    assert main([*make, "-o", str(root), "--quiet"]) == 0
    # The annotator: what the segmenter finds, and a box where the model drew something else.
    for index, scene in enumerate(asked):
        with Image.open(root / str(index) / "output.png") as image:
            masks = segment(np.asarray(image)).word_masks(scene)
        for number, (place, word) in enumerate(shape_words(scene).items()):
            box = np.zeros((64, 64), bool)
            box[8 + 24 * number : 24 + 24 * number, 8:24] = True
            save_alpha(root / str(index) / f"{word}.gt.png", masks.get(place, box))
    command = ["compare", "--data", f"coco-gen:{root}", "-n", "1", "--calibration", "1"]
    capsys.readouterr()
    assert main([*command, *METHODS, "--redraw", "-o", str(tmp_path / "out")]) == 0
    found = scores(capsys.readouterr().out)
    assert 0 < found["daam", "miou@best"] <= 1
    for path in (tmp_path / "out/samples").glob("*.safetensors"):
        trajectory = Trajectory.load(path)
        assert trajectory.noise_source == "sampled"
        with Image.open(root / path.stem / "output.png") as image:
            # Drawn again from the same seed, alone as before: the very same pixels.
            np.testing.assert_array_equal(trajectory.image, np.asarray(image))
