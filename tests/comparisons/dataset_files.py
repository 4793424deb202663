"""Tiny data sets on disk, in the formats that the real ones have."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 24, 32


def box(top, left, bottom, right, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


DOG, CAT, SKY = box(10, 2, 22, 12), box(8, 18, 20, 30), box(0, 0, 6, WIDTH)


def picture(seed=0, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def save(path: Path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path)


def save_alpha(path: Path, mask):
    """As the release has them: white all over, seen where the mask is."""
    rgba = np.full((*mask.shape, 4), 255, np.uint8)
    rgba[..., 3] = mask * 255
    save(path, rgba)


def coco_gen(root: Path, count=2) -> Path:
    for index in range(count):
        folder = root / str(100 + index)
        save(folder / "output.png", picture(index))
        (folder / "prompt.txt").write_text(f"A dog sees dog number {index} and a Cat.\n")
        (folder / "seed.txt").write_text(f"{7 + index}\n")
        save_alpha(folder / "dog.gt.png", DOG)
        save_alpha(folder / "cat.gt.png", CAT)
    return root


def plain_folder(root: Path, count=3) -> Path:
    lines = []
    for index in range(count):
        save(root / f"images/{index}.png", picture(index))
        save(root / f"masks/{index}-dog.png", DOG.astype(np.uint8) * 255)
        save_alpha(root / f"masks/{index}-sky.png", SKY)
        lines.append(
            {
                "image": f"images/{index}.png",
                "prompt": f"a dog under the sky {index}",
                "masks": {"dog": f"masks/{index}-dog.png", "sky": f"masks/{index}-sky.png"},
                "stuff": ["sky"],
            }
        )
    (root / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def voc(root: Path) -> Path:
    """Two images with classes 12 (dog) and 8 (cat), ringed by void."""
    palette = [value for colour in np.random.default_rng(0).integers(0, 255, 256) for value in
               (int(colour), 0, 255 - int(colour))]  # fmt: skip
    for name in ("2007_000001", "2007_000002"):
        save(root / f"JPEGImages/{name}.jpg", picture(3))
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[box(9, 1, 23, 13)] = 255
        labels[DOG] = 12
        labels[CAT] = 8
        image = Image.fromarray(labels, "P")
        image.putpalette(palette)
        (root / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        image.save(root / f"SegmentationClass/{name}.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000002\n")
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n")
    return root


def imagenet_segmentation(path: Path, ids=("n02084071_16", "n02121808_3")) -> Path:
    """Cells as MATLAB writes them: references to arrays whose axes are turned round."""
    with h5py.File(path, "w") as file:
        cells = file.create_group("#refs#")
        tables = {
            name: file.create_dataset(f"value/{name}", (len(ids), 1), dtype=h5py.ref_dtype)
            for name in ("img", "gt", "id")
        }
        for index, name in enumerate(ids):
            image = cells.create_dataset(f"i{index}", data=picture(index).transpose(2, 1, 0))
            mask = cells.create_dataset(f"m{index}", data=DOG.T.astype(np.uint8))
            inner = cells.create_dataset(f"c{index}", (1, 1), dtype=h5py.ref_dtype)
            inner[0, 0] = mask.ref
            letters = np.array([[ord(letter)] for letter in name], np.uint16)
            text = cells.create_dataset(f"t{index}", data=letters)
            for table, cell in zip(tables.values(), (image, inner, text), strict=True):
                table[index, 0] = cell.ref
    path.with_name("names.txt").write_text(
        "n02084071 dog, domestic dog, Canis familiaris\nn02121808 domestic cat, house cat\n"
    )
    return path


def coco(root: Path) -> Path:
    """One image with a dog (polygon), two cats (runs of both kinds) and sky, in all three kinds."""
    name = "000000000042"
    save(root / f"val2017/{name}.jpg", picture(5))
    images = [{"id": 42, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}]
    write_json(
        root / "annotations/captions_val2017.json",
        {
            "images": images,
            "annotations": [
                {"id": 1, "image_id": 42, "caption": "An empty field."},
                {"id": 2, "image_id": 42, "caption": "A puppy\nand two cats below the sky. "},
                {"id": 3, "image_id": 42, "caption": "A dog, a cat, the sky and a hot dog."},
            ],
        },
    )
    left, right = box(8, 18, 20, 22), box(8, 24, 20, 30)
    runs = np.diff(np.flatnonzero(np.diff(np.r_[2, left.T.ravel().astype(int), 2]))).tolist()
    packed = coco_mask.encode(np.asfortranarray(right.astype(np.uint8)))
    things = [
        {"id": 1, "image_id": 42, "category_id": 18, "iscrowd": 0,
         "segmentation": [[2, 10, 12, 10, 12, 22, 2, 22]]},
        {"id": 2, "image_id": 42, "category_id": 17, "iscrowd": 1,
         "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}},
        {"id": 3, "image_id": 42, "category_id": 17, "iscrowd": 0,
         "segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}},
    ]  # fmt: skip
    write_json(
        root / "annotations/instances_val2017.json",
        {
            "images": images,
            "annotations": things,
            "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        },
    )
    sky = coco_mask.encode(np.asfortranarray(SKY.astype(np.uint8)))
    write_json(
        root / "annotations/stuff_val2017.json",
        {
            "images": images,
            "annotations": [
                {"id": 9, "image_id": 42, "category_id": 157, "iscrowd": 0,
                 "segmentation": {"size": [HEIGHT, WIDTH], "counts": sky["counts"].decode()}}
            ],
            "categories": [{"id": 157, "name": "sky-other"}, {"id": 183, "name": "other"}],
        },
    )  # fmt: skip
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    # A segment's number is red + 256 green + 65536 blue.
    for mask, colour in ((DOG, (1, 2, 0)), (left, (3, 0, 0)), (right, (0, 0, 1)), (SKY, (9, 9, 9))):
        colours[mask] = colour
    save(root / f"annotations/panoptic_val2017/{name}.png", colours)
    write_json(
        root / "annotations/panoptic_val2017.json",
        {
            "images": images,
            "annotations": [
                {
                    "image_id": 42,
                    "file_name": f"{name}.png",
                    "segments_info": [
                        {"id": 1 + 256 * 2, "category_id": 18},
                        {"id": 3, "category_id": 17},
                        {"id": 65536, "category_id": 17},
                        {"id": 9 * (1 + 256 + 65536), "category_id": 187},
                    ],
                }
            ],
            "categories": [
                {"id": 17, "name": "cat", "isthing": 1},
                {"id": 18, "name": "dog", "isthing": 1},
                {"id": 187, "name": "sky-other-merged", "isthing": 0},
            ],
        },
    )
    return root


def write_json(path: Path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
