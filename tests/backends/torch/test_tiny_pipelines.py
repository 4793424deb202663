import numpy as np
import pytest
from diffusers import DiffusionPipeline

from wordlight.backends.torch.tiny import SIZE, TINY, build_tiny, draw_tiny
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer

#: Pipelines that an attribute makes small, which a file doesn't hold; and PRX, whose text encoder
#: transformers saves with its own settings and reads with those of the whole T5Gemma.
NOT_SAVED_SMALL = {"kandinsky-5", "hidream", "prx"}


@pytest.mark.parametrize("family", TINY)
def test_a_tiny_pipeline_draws_by_its_prompt_and_comes_back_from_a_folder(family, tmp_path):
    pipe = build_tiny(family)
    red = draw_tiny(family, pipe, "a red circle")
    assert red.shape[-1] == 3
    assert red.shape[-2] * SIZE[0] == red.shape[-3] * SIZE[1]
    assert np.isfinite(red).all()
    assert np.abs(red - draw_tiny(family, pipe, "two blue squares")).max() > 1e-3
    if family in NOT_SAVED_SMALL:
        return
    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    again.set_progress_bar_config(disable=True)
    # Matrix products round otherwise where weights lie otherwise in memory.
    np.testing.assert_allclose(draw_tiny(family, again, "a red circle"), red, atol=1e-4)


def test_weights_are_of_the_seed_alone():
    one, other, third = (build_tiny("sd", seed).unet.conv_in.weight for seed in (0, 0, 1))
    assert (one == other).all()
    assert (one != third).any()


def test_an_unknown_family_is_refused_with_those_there_are():
    with pytest.raises(KeyError, match="no tiny pipeline of 'sd9'; there are sd, lcm"):
        build_tiny("sd9")


@pytest.mark.parametrize("family", ["qwen-image", "hunyuan-image", "kandinsky-5"])
def test_what_pipelines_drop_of_a_template_is_as_long_as_in_the_real_vocabulary(family):
    pipe = build_tiny(family)
    template = getattr(pipe, "prompt_template_encode", None) or pipe.prompt_template
    before = qwen_tokenizer()(template.partition("{}")[0])["input_ids"]
    assert len(before) == pipe.prompt_template_encode_start_idx
