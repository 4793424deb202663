"""Videos: maps with an axis of frames, as arrays, pictures, figures and pages."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from wordlight import trace
from wordlight.attribution import DAAM, Occlusion, Regeneration, Region, SelfAttentionRefined
from wordlight.attribution.film import save_film
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.resize import frames_behind
from wordlight.attribution.viewer import Panel
from wordlight.backends import Trajectory
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny

PROMPT = "a red circle"


@cache
def traced(family):
    pipe = build_tiny(family)
    with trace(pipe) as run:
        frames = draw_tiny(family, pipe, PROMPT)
    return TorchBackend(pipe), run, frames[0]


@pytest.fixture(params=["wan", "ltx"])
def video(request):
    return traced(request.param)


def test_a_map_has_the_latents_frames(video):
    backend, run, frames = video
    (trajectory,) = run.trajectories
    assert trajectory.is_video
    np.testing.assert_array_equal(trajectory.image, np.rint(frames * 255).astype(np.uint8))
    maps = DAAM.from_trace(run)
    places = trajectory.latents.shape[2:]
    assert maps["circle"].shape == places == trajectory.places
    assert maps.data.dims == ("word", "frame", "y", "x")
    assert maps.provenance.settings["frames"] == places[0]
    # The frames are not one map again and again.
    own = np.asarray(maps["circle"])
    assert np.abs(own - own.mean(axis=0)).max() > 1e-4
    again = DAAM(backend).attribute(trajectory)
    by_layer = DAAM(backend, keep=["layer"]).attribute(trajectory)
    assert by_layer.data.dims == ("word", "layer", "frame", "y", "x")
    assert by_layer["circle"].shape == places
    # A batch of one row multiplies in another order than one of two.
    np.testing.assert_allclose(np.asarray(again["circle"]), own, atol=1e-5)


def test_attention_is_cut_into_frames_row_by_row():
    """Against PyTorch's own softmax of the same queries and keys, place by place."""
    backend, run, _ = traced("wan")
    (trajectory,) = run.trajectories
    frames, height, width = trajectory.places
    seen = {}

    def note(module, args, kwargs, _output):
        seen.setdefault(id(module), (args, kwargs))

    attention = backend.model.module.blocks[0].attn2
    handle = attention.register_forward_hook(note, with_kwargs=True)
    layer = DAAM(backend, steps=(0,), layers=["blocks.0.attn2"]).attribute(trajectory)
    handle.remove()
    (args, kwargs) = seen[id(attention)]
    hidden = args[0] if args else kwargs["hidden_states"]
    text = args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]
    q, k = attention.norm_q(attention.to_q(hidden)), attention.norm_k(attention.to_k(text))
    q, k = (x.unflatten(2, (attention.heads, -1)).transpose(1, 2) for x in (q, k))
    probs = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(1)[0].detach().numpy()
    grid = probs.T.reshape(-1, frames, height // 2, width // 2)
    (circle,) = layer["circle"].word.tokens
    found = np.asarray(layer["circle"])
    for frame in range(frames):
        # Bicubic resizing keeps the middle of four equal places; their mean is close to it.
        own = found[frame].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        assert np.corrcoef(own.ravel(), grid[circle, frame].ravel())[0, 1] > 0.95


def test_frames_that_are_decoded_together():
    # Wan: the first latent frame is one, every other one four.
    assert frames_behind(3, 9) == (0, 1, 1, 1, 1, 2, 2, 2, 2)
    assert frames_behind(1, 1) == (0,)
    # Where that doesn't go up, equal parts.
    assert frames_behind(3, 8) == (0, 0, 0, 1, 1, 1, 2, 2)
    assert frames_behind(4, 4) == (0, 1, 2, 3)


def test_maps_come_to_the_videos_own_frames(video, tmp_path):
    _, run, _ = video
    maps = DAAM.from_trace(run)
    circle = maps["circle"]
    n_frames, height, width, _ = maps.image.shape
    behind = frames_behind(len(circle.values), n_frames)
    resized = circle.resized()
    assert resized.shape == (n_frames, height, width)
    for frame, latent in enumerate(behind):
        alone = maps.select(frame=latent)["circle"]
        np.testing.assert_array_equal(resized[frame], alone.resized())
        np.testing.assert_array_equal(
            maps.select(frame=latent).image, maps.image[behind.index(latent)]
        )
    mask = circle.mask(0.5)
    assert mask.shape == (n_frames, height, width)
    assert 0 < mask.mean() < 1
    assert circle.overlay(frame=0).size == circle.overlay().size
    with pytest.raises(ValueError, match=f"no frame {n_frames}: the video has {n_frames}"):
        circle.overlay(frame=n_frames)
    with pytest.raises(ValueError, match="a map of one image"):
        maps.select(frame=0)["circle"].overlay(frame=0)
    film = save_film(maps, "circle", tmp_path / "circle.gif")
    with Image.open(film) as gif:
        assert gif.n_frames == n_frames


def test_files_and_figures(video, tmp_path):
    _, run, _ = video
    maps = DAAM.from_trace(run)
    maps.save(tmp_path / "maps.safetensors")
    again = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert (again.data == maps.data).all()
    assert again.is_video
    run.trajectories[0].save(tmp_path / "run.safetensors")
    kept = Trajectory.load(tmp_path / "run.safetensors")
    assert kept.digest() == run.trajectories[0].digest()
    assert "frames" in kept._repr_html_()
    n_frames = maps.data.sizes["frame"]
    figure = maps.plot(["circle"])
    # Each frame's image and map.
    assert sum(bool(axis.images) for axis in figure.axes) >= 2 * min(n_frames, 4)


def test_the_page_has_every_frame(video):
    _, run, _ = video
    maps = DAAM.from_trace(run)
    plain = Panel.of(maps).plain()
    n_frames = maps.data.sizes["frame"]
    assert len(set(plain["image"]["frames"])) == n_frames
    assert plain["axes"] == [{"name": "frame", "labels": [str(k) for k in range(n_frames)]}]
    assert plain["apart"]["shape"] == list(maps.data.shape)
    alone = Panel.of_word(maps["circle"]).plain()
    assert alone["apart"]["shape"] == [1, *maps["circle"].shape]


@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_what_explains_the_prediction_explains_videos(family):
    backend, run, _ = traced(family)
    (trajectory,) = run.trajectories
    maps = Occlusion(backend, steps=(1,)).attribute(trajectory)
    assert maps["circle"].shape == trajectory.places
    assert np.asarray(maps["circle"]).std() > 0


def test_what_is_of_single_images_is_refused():
    backend, run, _ = traced("wan")
    (trajectory,) = run.trajectories
    with pytest.raises(ValueError, match="explains single images, and this is a video: ask daam"):
        SelfAttentionRefined(backend).attribute(trajectory)
    with pytest.raises(ValueError, match="the target region is of single images"):
        Occlusion(backend).attribute(trajectory, target=Region(np.ones((32, 64))))
    with pytest.raises(MissingCapabilityError, match=r"call that inside wordlight\.trace\(pipe\)"):
        backend.sample(PROMPT)
    with pytest.raises(MissingCapabilityError, match=r"that work with it: .*daam.*occlusion"):
        Regeneration(backend)


def test_two_denoisers_are_refused():
    pipe = build_tiny("wan")
    pipe.register_modules(transformer_2=pipe.transformer)
    with pytest.raises(ValueError, match="a second denoiser for the steps of little noise"):
        trace(pipe)


def test_frames_of_images_are_refused():
    pipe = build_tiny("sd")
    with trace(pipe) as run:
        draw_tiny("sd", pipe, PROMPT)
    maps = DAAM.from_trace(run)
    with pytest.raises(ValueError, match="of a single image, and have no frames"):
        _ = maps.frame_images
    with pytest.raises(KeyError, match="can't select"):
        maps.select(frame=0)
    assert {"wan", "ltx"} <= set(TINY)
