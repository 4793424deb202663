"""Masks as tools export them: read as the object, or refused where they can be read as two."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wordlight.comparisons.datasets import DatasetError
from wordlight.comparisons.datasets.files import read_alpha_mask, read_image, read_mask

SIDE = 128


@pytest.fixture(scope="module")
def disc():
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).ellipse((30, 40, 90, 100), fill=255)
    return image


def palette_image(indices, colours):
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def opaque_rgba(disc):
    return Image.merge("RGBA", (disc, disc, disc, Image.new("L", disc.size, 255)))


def opaque_la(disc):
    return Image.merge("LA", (disc, Image.new("L", disc.size, 255)))


def seen_where_it_is(disc):
    white = Image.new("L", disc.size, 255)
    return Image.merge("RGBA", (white, white, white, disc))


def soft(disc):
    small = disc.resize((SIDE // 4, SIDE // 4), Image.Resampling.BILINEAR)
    return small.resize(disc.size, Image.Resampling.BICUBIC)


def of_ones(disc):
    return disc.point(lambda level: level > 0 and 1)


def not_quite_black(disc):
    return disc.point(lambda level: 230 if level else 20)


def red_and_green(disc):
    return palette_image(np.asarray(disc) > 0, [(255, 0, 0), (0, 255, 0)])


def voc_like(disc):
    return palette_image(np.asarray(disc) > 0, [(0, 0, 0), (128, 0, 0)])


def quantised(disc):
    """Grey, with white at number 0, as `quantize` may order them."""
    return palette_image(np.asarray(disc) == 0, [(255, 255, 255), (0, 0, 0)])


def transparent_colour(disc):
    image = palette_image(np.asarray(disc) > 0, [(200, 10, 10), (10, 200, 10)])
    image.info["transparency"] = 0
    return image


def one_bit(disc):
    return disc.convert("1")


def sixteen_bits(disc):
    return Image.fromarray((np.asarray(disc) > 0).astype(np.uint16) * 40_000)


def of_floats(disc):
    return Image.fromarray(np.asarray(disc).astype(np.float32) / 300)


def with_a_border(disc):
    """As VOC's, whose objects have an edge of a number of its own."""
    numbers = np.where(np.asarray(disc) > 0, 1, 0)
    inner = np.asarray(disc.resize((SIDE - 8, SIDE - 8)).crop((-4, -4, SIDE - 4, SIDE - 4))) > 0
    numbers[(numbers == 1) & ~inner] = 2
    return palette_image(numbers, [(0, 0, 0), (128, 0, 0), (224, 224, 192)])


@pytest.mark.parametrize("level", [0, 1])
def test_one_bit_of_one_value(level, tmp_path):
    Image.new("1", (9, 7), level).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").all() == bool(level)
    assert read_mask(tmp_path / "mask.png").any() == bool(level)


@pytest.mark.parametrize("name", ["mask.tif", "mask.bmp", "mask.webp", "mask.ppm", "cmyk.jpg"])
def test_what_other_formats_hold(disc, name, tmp_path):
    kept = {"mask.tif": of_floats(disc), "cmyk.jpg": disc.convert("RGB").convert("CMYK")}
    kept.get(name, disc).save(tmp_path / name)
    found, true = read_mask(tmp_path / name), np.asarray(disc) > 127
    assert (found & true).sum() / (found | true).sum() > 0.98


def test_several_frames_are_no_mask(disc, tmp_path):
    for name in ("mask.png", "mask.tif"):
        white = Image.new("L", disc.size, 255)
        disc.save(tmp_path / name, save_all=True, append_images=[white])
        with pytest.raises(DatasetError, match="has 2 frames or pages"):
            read_mask(tmp_path / name)


def test_palettes_of_several_things_are_refused(disc, tmp_path):
    numbers = np.where(np.asarray(disc) > 0, 1, 0)
    numbers[:20] = 2
    palette_image(numbers, [(0, 0, 0), (128, 0, 0), (0, 128, 0)]).save(tmp_path / "two.png")
    with pytest.raises(DatasetError, match="shows several things"):
        read_mask(tmp_path / "two.png")
    palette_image(numbers > 0, [(0, 0, 0)] * 2).save(tmp_path / "alike.png")
    with pytest.raises(DatasetError, match="shows all of its numbers in one colour"):
        read_mask(tmp_path / "alike.png")


@pytest.mark.parametrize(
    "export",
    [
        opaque_rgba, opaque_la, seen_where_it_is, soft, of_ones, not_quite_black, red_and_green,
        voc_like, quantised, transparent_colour, one_bit, sixteen_bits,
        with_a_border,
    ],
)  # fmt: skip
def test_what_tools_export(disc, export, tmp_path):
    export(disc).save(tmp_path / "mask.png")
    found, true = read_mask(tmp_path / "mask.png"), np.asarray(disc) > 127
    # An edge that was made soft is found to within a pixel.
    assert (found & true).sum() / (found | true).sum() > (0.96 if export is soft else 0.999)


@pytest.mark.parametrize("quality", [30, 90])
def test_ringing_is_no_object(disc, quality, tmp_path):
    disc.save(tmp_path / "mask.jpg", quality=quality)
    found, true = read_mask(tmp_path / "mask.jpg"), np.asarray(disc) > 127
    assert (found & true).sum() / (found | true).sum() > 0.98


def test_an_empty_mask_and_a_full_one(tmp_path):
    for level in (0, 1, 255):
        Image.new("L", (9, 7), level).save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png").all() == (level > 0)
        assert read_mask(tmp_path / "mask.png").any() == (level > 0)


def test_what_can_be_read_as_two_masks_is_refused(disc, tmp_path):
    two = np.asarray(disc).copy()
    two[:20] = 128
    Image.fromarray(two).save(tmp_path / "trimap.png")
    with pytest.raises(DatasetError, match=r"trimap\.png has more than two values"):
        read_mask(tmp_path / "trimap.png")
    palette_image(np.asarray(disc) > 0, [(255, 0, 0), (0, 0, 0)]).save(tmp_path / "turned.png")
    with pytest.raises(DatasetError, match="can be read as two masks"):
        read_mask(tmp_path / "turned.png")
    palette_image(1 + (np.asarray(disc) > 0), [(9, 9, 9), (255, 0, 0), (0, 255, 0)]).save(
        tmp_path / "groundless.png"
    )
    with pytest.raises(DatasetError, match="shows no ground"):
        read_mask(tmp_path / "groundless.png")


def red_on_white(disc):
    return Image.composite(
        Image.new("RGB", disc.size, "red"), Image.new("RGB", disc.size, "white"), disc
    )


def two_colours(disc):
    image = Image.composite(Image.new("RGB", disc.size, "red"), Image.new("RGB", disc.size), disc)
    image.paste("lime", (100, 0, SIDE, 30))
    return image


def numbers_of_objects(disc):
    image = disc.point(lambda level: level and 10)
    image.paste(9, (100, 0, SIDE, 30))
    return image


def large_numbers(disc):
    numbers = np.asarray(disc).astype(np.uint16) // 255 * 1003
    numbers[:30, 100:] = 1001
    return Image.fromarray(numbers)


def round_corners(disc):
    seen = Image.new("L", disc.size, 255)
    seen.paste(0, (0, 0, 9, 9))
    return Image.merge("LA", (disc, seen))


def nothing_positive(disc):
    return Image.fromarray(-(np.asarray(disc) > 0).astype(np.int32))


@pytest.mark.parametrize(
    ("export", "why"),
    [
        (red_on_white, "of several colours"), (two_colours, "of several colours"),
        (numbers_of_objects, "of several numbers"), (large_numbers, "of several numbers"),
        (round_corners, "by its transparency, and by the white"),
        (nothing_positive, "no level above 0"),
    ],
)  # fmt: skip
def test_masks_of_several_things_are_refused(disc, export, why, tmp_path):
    export(disc).save(tmp_path / "mask.tif")
    with pytest.raises(DatasetError, match=why):
        read_mask(tmp_path / "mask.tif")


def test_void_is_nobody_s(disc, tmp_path):
    numbers = (np.asarray(disc) > 0).astype(np.uint8)
    numbers[:30, 100:] = 255
    colours = [(0, 0, 0), (128, 0, 0), *[(9, 9, 9)] * 253, (224, 224, 192)]
    palette_image(numbers, colours).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), numbers == 1)


def test_a_bmp_whose_bytes_pillow_takes_for_bits(disc, tmp_path):
    palette_image(np.asarray(disc) > 0, [(0, 0, 0), (255, 255, 255)]).save(tmp_path / "mask.bmp")
    with pytest.raises(DatasetError, match="save it as PNG"):
        read_mask(tmp_path / "mask.bmp")
    disc.convert("1").save(tmp_path / "mask.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.bmp"), np.asarray(disc) > 127)


def test_an_alpha_channel_that_shows_all_is_no_mask(disc, tmp_path):
    opaque_rgba(disc).save(tmp_path / "mask.png")
    with pytest.raises(DatasetError, match="opaque everywhere"):
        read_alpha_mask(tmp_path / "mask.png")
    seen_where_it_is(disc).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_alpha_mask(tmp_path / "mask.png"), np.asarray(disc) > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photographs_stand_upright(orientation, tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255
    turns = {
        2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: np.transpose(a, (1, 0, 2)), 6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2), 8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    stored = np.ascontiguousarray(turns.get(orientation, lambda a: a)(upright))
    exif = Image.Exif()
    exif[0x112] = orientation
    for name in ("photograph.png", "photograph.jpg"):
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
        assert (np.abs(read_image(tmp_path / name).astype(int) - upright) < 60).all()


def test_an_image_that_would_take_gigabytes_is_refused(tmp_path):
    Image.new("L", (9000, 9000)).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size < 100_000
    for read in (read_image, read_mask):
        with pytest.raises(DatasetError, match="9000x9000"):
            read(tmp_path / "large.png")
