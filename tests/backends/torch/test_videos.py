"""Videos: maps with an axis of frames, as arrays, pictures, figures and pages."""

import functools
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, WanTransformer3DModel
from PIL import Image

from wordlight import load, trace
from wordlight.attribution import DAAM, Occlusion, Regeneration, Region, SelfAttentionRefined
from wordlight.attribution.film import save_film
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.resize import frames_behind
from wordlight.attribution.viewer import Panel
from wordlight.backends import AttentionQuery, Trajectory
from wordlight.backends.backend import Conditioning, MissingCapabilityError
from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny, made_small
from wordlight.comparisons import compare
from wordlight.comparisons.metrics.overlap import iou_at

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


@pytest.mark.parametrize("family", ["wan", "wan-2.2", "ltx"])
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


def test_each_of_two_denoisers_has_its_own_steps():
    """Wan 2.2: what ran at each step is seen from beside the trace."""
    pipe = build_tiny("wan-2.2")
    ran = []
    for name in ("transformer", "transformer_2"):
        hook = functools.partial(lambda name, *_: ran.append(name), name)
        getattr(pipe, name).register_forward_hook(hook)
    with trace(pipe, AttentionQuery(keep=("step", "layer"))) as run:
        draw_tiny("wan-2.2", pipe, PROMPT, num_inference_steps=4)
    (trajectory,) = run.trajectories
    own = ["blocks.0.attn2", "blocks.1.attn2"]
    layers = {"transformer": own, "transformer_2": [f"transformer_2.{name}" for name in own]}
    # Guidance calls each twice.
    assert set(ran) == set(layers)
    seen = {step: [m.layer for m in run.attention[0].means if m.step == step] for step in range(4)}
    assert seen == {step: layers[ran[2 * step]] for step in range(4)}
    backend = TorchBackend(pipe)
    assert [layer.name for layer in backend.layers] == own + layers["transformer_2"]
    again = backend.attention(trajectory, run.query, range(4))
    for one, other in zip(again.means, run.attention[0].means, strict=True):
        assert (one.step, one.layer) == (other.step, other.layer)
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)
    with pytest.raises(ValueError, match="not every combination of step, layer exists"):
        DAAM.from_trace(run)
    whole = DAAM(backend).attribute(trajectory)
    one_by_one = [DAAM(backend, steps=[k]).attribute(trajectory)["circle"] for k in range(4)]
    # What bicubic resizing takes below zero is clamped of each step's map alone here.
    np.testing.assert_allclose(whole["circle"], np.mean(one_by_one, axis=0), atol=1e-4)


def test_a_step_is_predicted_by_the_denoiser_that_drew_it():
    backend, run, _ = traced("wan-2.2")
    (trajectory,) = run.trajectories
    text = backend.asarray(trajectory.embeddings[None])
    for step, name in ((0, "transformer"), (1, "transformer_2")):
        latents = backend.asarray(trajectory.latents[step][None])
        time = float(trajectory.timesteps[step])
        with torch.no_grad():
            made = backend.denoise(latents, time, Conditioning(text, {}))
            own = getattr(backend.pipe, name)(latents, torch.tensor([time]), text)[0]
        wanted = latents + (1 - time / 1000) * own
        np.testing.assert_allclose(made.numpy(), wanted.numpy(), atol=1e-5)


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


def test_a_comparison_of_videos_is_refused_before_anything_is_written(video, tmp_path):
    backend, _, _ = video
    with pytest.raises(MissingCapabilityError, match=r"can do neither .*normalised\(\)\[frame\]"):
        compare(backend, ["daam"], out=tmp_path / "run", n=2)
    assert not list((tmp_path / "run").glob("**/*.parquet"))


def test_a_frame_of_a_map_is_scored_against_a_mask(video):
    """As the error of a comparison says."""
    _, run, frames = video
    mask = np.zeros(frames.shape[1:3], bool)
    mask[: mask.shape[0] // 2] = True
    shown = DAAM.from_trace(run)["circle"].normalised()
    for frame in (0, len(frames) - 1):
        (found,) = iou_at(shown[frame], mask, [0.4])
        cut = shown[frame] >= np.float32(0.4)
        assert found == pytest.approx((cut & mask).sum() / (cut | mask).sum())


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("family", ["wan-2.2", "kandinsky-5", "krea-2"])
def test_a_folder_in_half_precision_is_read_as_diffusers_reads_it(family, tmp_path):
    """Norms and times, which these models compute in float32, stay there; of two denoisers in
    both."""
    with warnings.catch_warnings():
        # The libraries' own, of what they save.
        warnings.simplefilter("ignore")
        build_tiny(family).save_pretrained(tmp_path)
        backend = load(tmp_path, device="cpu", dtype="bfloat16")
        wanted = DiffusionPipeline.from_pretrained(
            tmp_path, torch_dtype=torch.bfloat16, local_files_only=True
        )
    modules = [name for name in backend.pipe.components if name.startswith("transformer")]
    for part in modules:
        other = dict(getattr(wanted, part).named_parameters())
        own = dict(getattr(backend.pipe, part).named_parameters())
        assert {weight.dtype for weight in own.values()} == {torch.bfloat16, torch.float32}
        assert all(torch.equal(weight, other[name]) for name, weight in own.items())
        assert all(weight.dtype == other[name].dtype for name, weight in own.items())
    assert len(modules) == (2 if family == "wan-2.2" else 1)
    assert backend.dtype == "bfloat16"
    with backend.trace() as run:
        draw_tiny(family, made_small(family, backend.pipe), PROMPT)
    steps = tuple(range(run.trajectories[0].steps))
    replayed = backend.attention(run.trajectories[0], AttentionQuery(), steps)
    for own, again in zip(run.attention[0].means, replayed.means, strict=True):
        # A guided batch is multiplied in another order, and rounded to 8 bits.
        np.testing.assert_allclose(again.values, own.values, atol=2e-2)


def test_each_network_of_a_folder_is_read_once(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny("wan-2.2").save_pretrained(tmp_path)
    read = []
    own = WanTransformer3DModel.from_pretrained.__func__

    def counted(cls, *args, **kwargs):
        read.append(kwargs.get("subfolder"))
        return own(cls, *args, **kwargs)

    monkeypatch.setattr(WanTransformer3DModel, "from_pretrained", classmethod(counted))
    load(tmp_path, device="cpu")
    assert read == ["transformer", "transformer_2"]


@pytest.mark.parametrize("part", ["transformer", "transformer_2"])
def test_a_folder_without_one_of_two_denoisers_is_refused(part, tmp_path):
    pipe = build_tiny("wan-2.2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.save_pretrained(tmp_path)
    (tmp_path / part / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=rf"{part}' can't be loaded"):
        load(tmp_path, device="cpu")
