"""Trains an embedded model: ``python -m wordlight.backends.training.train --help``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from wordlight.backends.training.blueprints import BLUEPRINTS
from wordlight.backends.training.graphed import is_gpu
from wordlight.backends.training.training import TIMESTEP_SHIFTS, Recipe, Setup


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wordlight.backends.training.train",
        description="Train the embedded model. Stages: the autoencoder first, then its decoder "
        "alone (at any time before the export) and the denoiser (with its text encoder), "
        "then export to a diffusers folder. A stopped stage goes on where its checkpoint was when "
        "the same command is given again.",
    )
    stages = parser.add_subparsers(dest="stage", required=True)

    def add_stage(
        name: str, text: str, steps: int, batch: int, rate: float
    ) -> argparse.ArgumentParser:
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("--run", type=Path, required=True, help="folder of the checkpoints")
        stage.add_argument(
            "--model", choices=BLUEPRINTS, default="scenes", help="which model (scenes)"
        )
        stage.add_argument("--steps", type=int, default=steps, help=f"in all ({steps})")
        stage.add_argument("--batch", type=int, default=batch, help=f"images a step ({batch})")
        stage.add_argument("--rate", type=float, default=rate, help=f"learning rate ({rate})")
        stage.add_argument("--cooldown", type=int, default=0, help="last steps falling to rate 0")
        stage.add_argument("--images", type=int, default=60_000, help="different ones to train on")
        stage.add_argument("--seed", type=int, default=0)
        stage.add_argument("--device", default="cpu")
        stage.add_argument("--threads", type=int, default=2, help="CPU threads (results depend)")
        stage.add_argument(
            "--eager", action="store_true", help="on a GPU too: don't replay steps as a CUDA graph"
        )
        stage.add_argument(
            "--workers", type=int, default=1, help="processes that render images (1)"
        )
        stage.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
        return stage

    add_stage("autoencoder", "train the autoencoder", 14_000, 8, 2e-3)
    add_stage("decoder", "train the autoencoder's decoder further", 12_000, 8, 2e-3)
    denoiser = add_stage("denoiser", "train text encoder and denoiser", 20_000, 32, 1e-3)
    denoiser.add_argument(
        "--widths",
        help="channels of the UNet's levels or the transformer's layers, such as 48,64,96",
    )
    denoiser.add_argument("--check-every", type=int, default=1000, help="steps between tests")
    denoiser.add_argument(
        "--minutes",
        type=float,
        help="how long, instead of --steps: the rate falls over the last two fifths, and the log "
        "tells the numbers of steps that train the same again",
    )
    denoiser.add_argument(
        "--bfloat16", action="store_true", help="compute products in bfloat16, for GPUs"
    )
    denoiser.add_argument(
        "--compiled", action="store_true", help="compile the denoiser first, by torch.compile"
    )
    default = ",".join(f"{step}:{shift}" for step, shift in TIMESTEP_SHIFTS.items())
    denoiser.add_argument(
        "--timestep-shifts",
        type=_shifts,
        default=TIMESTEP_SHIFTS,
        metavar="STEP:SHIFT,...",
        help=f"from which step on images are how noisy, the more the higher ({default})",
    )
    export = stages.add_parser("export", help="write a diffusers folder")
    export.add_argument("--run", type=Path, required=True, help="folder of the checkpoints")
    export.add_argument("--to", type=Path, required=True, help="folder to write")
    export.add_argument(
        "--half",
        action="store_true",
        help="store the weights as float16, and note how far that moves the pictures",
    )
    return parser


def _shifts(text: str) -> dict[int, float]:
    try:
        parts = (part.split(":") for part in text.split(","))
        shifts = {int(step): float(shift) for step, shift in parts}
    except ValueError:
        raise argparse.ArgumentTypeError(f"not STEP:SHIFT,STEP:SHIFT,...: {text!r}") from None
    if 0 not in shifts:
        raise argparse.ArgumentTypeError(f"no shift for step 0 in {text!r}")
    return shifts


def main() -> None:
    """Run the stage that the command line names."""
    options = _parser().parse_args()
    if options.stage == "export":
        from wordlight.backends.training.export import export

        export(options.run, options.to, half=options.half)
        return
    torch.set_num_threads(options.threads)
    if is_gpu(options.device):
        torch.set_float32_matmul_precision("high")  # as convolutions are there by themselves
    recipe = Recipe(
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        warmup=200,
        cooldown=options.cooldown,
        seed=options.seed,
    )
    setup = Setup(
        blueprint=BLUEPRINTS[options.model],
        folder=options.run,
        recipe=recipe,
        images=options.images,
        device=options.device,
        save_every=options.save_every,
        workers=options.workers,
        eager=options.eager,
    )
    if options.stage in ("autoencoder", "decoder"):
        from wordlight.backends.training import train_autoencoder as stages

        train = stages.train_decoder if options.stage == "decoder" else stages.train_autoencoder
        train(setup)
    else:
        from wordlight.backends.training.train_denoiser import train_denoiser

        widths = setup.blueprint.sizes.denoiser_widths
        if options.widths:
            widths = tuple(map(int, options.widths.split(",")))
        train_denoiser(
            setup,
            widths,
            check_every=options.check_every,
            timestep_shifts=options.timestep_shifts,
            bfloat16=options.bfloat16,
            compiled=options.compiled,
            minutes=options.minutes,
        )


if __name__ == "__main__":
    main()
