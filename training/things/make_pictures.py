"""Render the sheet of pictures of ``things``: one row a noun, one column a style.

    pip install resvg-py==0.3.3
    python training/things/make_pictures.py

The packages are fetched by ``npm pack`` and checked against the sums below. The sheet is
``backends/things/pictures.webp``, lossless, so that it decodes to the same pixels everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import resvg_py
from PIL import Image

from wordlight.backends.things.nouns import NOUNS, STYLES
from wordlight.backends.things.pictures import SHEET, TILE

#: A style's npm package, its version and the SHA-256 of its archive.
PACKAGES = {
    "noto": (
        "@iconify-json/noto@1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "flat": (
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "fluent": (
        "@iconify-json/fluent-emoji@1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    ),
    "3d": (
        "@lobehub/fluent-emoji-3d@1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
}
#: Side at which a vector picture is drawn before it is reduced to a tile.
_DRAWN = 256


def fetch(style: str, folder: Path) -> tarfile.TarFile:
    """Return the style's package, opened; it is fetched unless ``folder`` has it.

    Raises ValueError if its checksum is wrong.
    """
    name, checksum = PACKAGES[style]
    archive = folder / (name[1:].replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != checksum:
        raise ValueError(f"{archive} has SHA-256 {found}, not {checksum}")
    return tarfile.open(archive)


def read(package: tarfile.TarFile, path: str) -> bytes:
    """Return the bytes of a file of the package."""
    file = package.extractfile(f"package/{path}")
    assert file is not None
    return file.read()


def drawn_icons(package: tarfile.TarFile) -> dict[str, Image.Image]:
    """Return every noun's picture of a package of vector icons."""
    icons = json.loads(read(package, "icons.json"))
    pictures = {}
    for noun in NOUNS.values():
        icon = icons["icons"][icons.get("aliases", {}).get(noun.icon, {}).get("parent", noun.icon)]
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}">{icon["body"]}</svg>'
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_DRAWN, height=_DRAWN))
        pictures[noun.name] = Image.open(io.BytesIO(png)).convert("RGBA")
    return pictures


def rendered_icons(package: tarfile.TarFile, codes: dict[str, str]) -> dict[str, Image.Image]:
    """Return every noun's picture of the package of rendered ones, whose files are code points."""
    names = set(package.getnames())
    pictures = {}
    for noun in NOUNS.values():
        code = codes[noun.icon]
        # Some names end in the selector that asks for a picture instead of a letter.
        stem = code if f"package/assets/{code}.webp" in names else f"{code}-fe0f"
        content = read(package, f"assets/{stem}.webp")
        pictures[noun.name] = Image.open(io.BytesIO(content)).convert("RGBA")
    return pictures


def code_points(package: tarfile.TarFile) -> dict[str, str]:
    """Return each icon's code points, as the rendered pictures' files are called."""
    codes: dict[str, str] = {}
    for code, icon in json.loads(read(package, "chars.json")).items():
        codes.setdefault(icon, code)
    return codes


def tile(picture: Image.Image) -> Image.Image:
    """Return the picture without its empty rim, as large as a tile with a rim of one pixel."""
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = (TILE - 2) / max(picture.size)
    size = tuple(max(1, round(scale * side)) for side in picture.size)
    # Colours are weighted by alpha: those of transparent pixels mean nothing.
    small = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (TILE, TILE))
    square.paste(small, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return square


def main() -> None:
    """Fetch, render, write the sheet and say how large it is."""
    parser = argparse.ArgumentParser(description="Render the sheet of pictures of `things`.")
    parser.add_argument("--packages", type=Path, default=Path("runs/npm"), help="their folder")
    folder = parser.parse_args().packages
    folder.mkdir(parents=True, exist_ok=True)
    packages = {style: fetch(style, folder) for style in STYLES}
    codes = code_points(packages["flat"])
    sheet = Image.new("RGBA", (TILE * len(STYLES), TILE * len(NOUNS)))
    for column, (style, package) in enumerate(packages.items()):
        pictures = rendered_icons(package, codes) if style == "3d" else drawn_icons(package)
        for row, name in enumerate(NOUNS):
            sheet.paste(tile(pictures[name]), (TILE * column, TILE * row))
    sheet.save(SHEET, lossless=True, quality=100, method=6)
    digest = hashlib.sha256(sheet.tobytes()).hexdigest()
    print(f"{len(NOUNS)} nouns, {len(STYLES)} styles, {SHEET.stat().st_size} bytes, {digest}")


if __name__ == "__main__":
    main()
