"""Trains the segmenter of ``things``: ``python -m wordlight.backends.training.train_segmenter``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from wordlight.backends.prompts import RenderedScene
from wordlight.backends.things.checking import check
from wordlight.backends.things.grammar import DATA_VERSION, GROUNDS
from wordlight.backends.things.render import SIZE, rendered
from wordlight.backends.things.segment import CLASSES, GROUND_ID, NOUN_ID, WEIGHTS, WIDTHS
from wordlight.backends.training.composites import crowded
from wordlight.backends.training.training import (
    Recipe,
    Run,
    averaged_weights,
    mean,
    step_generator,
)

#: What it takes to be shipped, on validation scenes, and the splits that it is told of.
MIN_IOU, MIN_CLASS = 0.80, 0.90
JUDGED = ("validation", "unseen-pairs", "look-alikes", "unseen-style")
#: Every other image is a crowded one.
_CROWDED_EVERY = 2
#: A ground fills most of an image and is easily told: it counts less.
_GROUND_WEIGHT = 0.2
#: Cells that show two things teach no class.
_MIXED = -100


class SegmenterNet(torch.nn.Module):
    """The network of ``segment.predict``, with a batch normalisation after most convolutions."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        before = 3
        for level, width in enumerate(WIDTHS):
            self.add_module(f"down{level}", _Normed(before, width, stride=2))
            self.add_module(f"same{level}", _Normed(width, width))
            before = width
        for level in reversed(range(len(WIDTHS) - 1)):
            self.add_module(f"up{level}", nn.Conv2d(WIDTHS[level + 1], WIDTHS[level], 1))
            self.add_module(f"merge{level}", _Normed(WIDTHS[level], WIDTHS[level]))
        self.covered = nn.Conv2d(WIDTHS[0], 4, 1)
        self.classes = nn.Conv2d(WIDTHS[0], len(CLASSES), 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(batch, 1, 64, 64)`` and ``(batch, classes, 32, 32)`` of images in -1 to 1."""
        x = images
        skips = []
        for level in range(len(WIDTHS)):
            x = torch.relu(self.get_submodule(f"down{level}")(x))
            x = torch.relu(self.get_submodule(f"same{level}")(x))
            skips.append(x)
        for level in reversed(range(len(WIDTHS) - 1)):
            x = self.get_submodule(f"up{level}")(x)
            x = torch.nn.functional.interpolate(x, scale_factor=2) + skips[level]
            x = torch.relu(self.get_submodule(f"merge{level}")(x))
        return torch.nn.functional.pixel_shuffle(self.covered(x), 2), self.classes(x)


class _Normed(torch.nn.Sequential):
    """A convolution with a batch normalisation."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__(
            torch.nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            torch.nn.BatchNorm2d(width),
        )

    def fold(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight and bias of the one convolution that does the same."""
        conv, norm = self
        assert isinstance(conv, torch.nn.Conv2d)
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def folded_weights(model: SegmenterNet) -> dict[str, torch.Tensor]:
    """Return the weights as ``segment.predict`` takes them, without normalisations."""
    weights: dict[str, torch.Tensor] = {}
    for name, module in model.named_children():
        if isinstance(module, _Normed):
            weight, bias = module.fold()
        else:
            assert isinstance(module, torch.nn.Conv2d)
            assert module.bias is not None
            weight, bias = module.weight, module.bias
        weights |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    return weights


def labels(item: RenderedScene) -> npt.NDArray[np.int64]:
    """Return each pixel's class, ``(64, 64)`` int64."""
    found = np.full((SIZE, SIZE), GROUND_ID[item.ground])
    for group, mask in zip(item.scene.groups, item.group_masks, strict=True):
        found[mask] = NOUN_ID[group.noun]
    return found


def training_image(seed: int, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return an image and its labels: crowded ones and scenes in turn, always new ones."""
    if index % _CROWDED_EVERY:
        return crowded(seed, index)
    item = rendered("train", index)
    return item.image, labels(item)


def train(
    folder: Path, recipe: Recipe, save_every: int, check_every: int, check_images: int
) -> None:
    """Train, or go on training, until ``recipe.steps``; every image is a new one."""
    torch.manual_seed(recipe.seed)
    model = SegmenterNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(folder, "segmenter", model, recipe, {"data_version": DATA_VERSION, "crowded": True})
    losses: list[tuple[float, float]] = []
    while run.step < recipe.steps:
        first = run.step * recipe.batch
        shown = [training_image(recipe.seed, first + k) for k in range(recipe.batch)]
        pixels, truth = (torch.from_numpy(np.stack(column)) for column in zip(*shown, strict=True))
        images = degraded(pixels, step_generator(recipe.seed, run.step))
        covered, classes = model(images.contiguous(memory_format=torch.channels_last))
        of_things, of_classes = _losses(covered, classes, truth)
        run.update(of_things + of_classes)
        losses.append((float(of_things.detach()), float(of_classes.detach())))
        if run.step % 100 == 0:
            things, names = (mean(column) for column in zip(*losses, strict=True))
            run.log(covered=things, classes=names, rate=recipe.rate_at(run.step - 1))
            losses.clear()
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.save()
        if run.step % check_every == 0 or run.step == recipe.steps:
            judged = SegmenterNet()
            judged.load_state_dict(run.average)
            weights = {name: values.numpy() for name, values in folded_weights(judged).items()}
            run.log(**check("validation", check_images, weights))


def _losses(
    covered: torch.Tensor, classes: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    functional = torch.nn.functional
    things = (truth >= len(GROUNDS)).float()
    cells = truth.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    pure = (cells == cells[..., :1]).all(-1)
    goal = torch.where(pure, cells[..., 0], _MIXED)
    weight = torch.ones(len(CLASSES))
    weight[: len(GROUNDS)] = _GROUND_WEIGHT
    return (
        functional.binary_cross_entropy_with_logits(covered[:, 0], things),
        functional.cross_entropy(classes, goal, weight, ignore_index=_MIXED),
    )


def degraded(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images as a model may draw them, ``(batch, 3, 64, 64)`` in -1 to 1.

    A third are blurred; contrast, brightness and colours move a little; noise is added.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    n = len(images)
    blurred = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1
    )
    share = torch.rand(n, 1, 1, 1, generator=generator)
    share = share * (torch.rand(n, 1, 1, 1, generator=generator) < 0.33)
    images = images + share * (blurred - images)
    contrast = 1.0 + 0.1 * torch.randn(n, 1, 1, 1, generator=generator)
    shift = 0.05 * torch.randn(n, 3, 1, 1, generator=generator)
    noise = 0.06 * torch.rand(n, 1, 1, 1, generator=generator)
    noise = noise * torch.randn(images.shape, generator=generator)
    worse: torch.Tensor = (images * contrast + shift + noise).clamp(-1.0, 1.0)
    return worse


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a run, folded and in half precision."""
    model = SegmenterNet()
    model.load_state_dict(averaged_weights(folder / "segmenter.safetensors"))
    return {name: values.half().contiguous() for name, values in folded_weights(model).items()}


def export(folder: Path, n: int) -> dict[str, dict[str, float]]:
    """Judge a run's weights on ``n`` scenes of each held-out split, and ship them if they are good.

    Returns the figures by split. Raises ValueError where those of validation scenes are too low.
    """
    weights = trained_weights(folder)
    as_shipped = {name: values.float().numpy() for name, values in weights.items()}
    figures = {split: check(split, n, as_shipped) for split in JUDGED}
    found = figures["validation"]
    if found["iou"] < MIN_IOU or found["class"] < MIN_CLASS:
        raise ValueError(
            f"not good enough to be shipped: an IoU of {found['iou']:.3f} and {found['class']:.3f} "
            f"of nouns right on validation scenes; {MIN_IOU} and {MIN_CLASS} are asked for"
        )
    save_file(weights, WEIGHTS)
    return figures


def main() -> None:
    """Train as the command line says, then write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m wordlight.backends.training.train_segmenter",
        description="Train the segmenter of `things`. A stopped run goes on when the same command "
        "is given again; at its end it is judged on held-out scenes, and its weights are written "
        "to where they are shipped if they are good enough.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=6000, help="in all (6000)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (16)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (0.002)")
    parser.add_argument("--cooldown", type=int, default=3000, help="last steps falling to rate 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (results depend)")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--check-every", type=int, default=500, help="steps between tests")
    parser.add_argument("--judged", type=int, default=200, help="scenes a split at the end (200)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(options.steps, options.batch, options.rate, 100, options.cooldown, options.seed)
    train(options.run, recipe, options.save_every, options.check_every, check_images=100)
    for split, figures in export(options.run, options.judged).items():
        print(split, " ".join(f"{name} {value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
