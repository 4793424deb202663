import numpy as np
import pytest
import torch

from wordlight.backends.scenes.grammar import COLOURS, Group, Scene
from wordlight.backends.scenes.render import SIZE, render_scene
from wordlight.backends.scenes.tokenizer import EOS_ID, build_tokenizer
from wordlight.backends.training.blueprints import SCENES
from wordlight.backends.training.places import PlacesHead, place_targets


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def scene(*groups: Group, relation: str | None = None):
    return render_scene(Scene(groups, relation, "gray", True), np.random.default_rng(0))


RED, BLUE = Group(2, None, "red", "circle"), Group(1, "small", "blue", "cross")


def test_places_stand_at_the_nouns_and_at_the_colours_drawn(tokenizer):
    item = scene(RED, BLUE, relation="left")
    goals = place_targets(SCENES, tokenizer, [item])
    tokens = tokenizer.convert_ids_to_tokens(
        tokenizer(item.scene.prompt, padding="max_length").input_ids
    )
    known = (~goals["token_places"][0].isnan()).all(1).nonzero()[:, 0].tolist()
    assert [tokens[i].removesuffix("</w>") for i in known] == ["s", "cross"]  # circle + s
    for group, (token, colour) in enumerate(zip(known, ("red", "blue"), strict=True)):
        centres = [(o.x, o.y) for o in item.objects if o.group == group]
        expected = torch.tensor(np.mean(centres, axis=0) / (SIZE / 2) - 1, dtype=torch.float32)
        # Float32 holds seven digits.
        torch.testing.assert_close(goals["token_places"][0, token], expected, rtol=0, atol=1e-6)
        place = goals["named_places"][0, list(COLOURS).index(colour)]
        torch.testing.assert_close(place, expected, rtol=0, atol=1e-6)
    assert (~goals["named_places"][0].isnan()).all(1).sum() == 2


def test_the_loss_is_zero_where_the_places_are_right_and_of_the_empty_prompt(tokenizer):
    items = [scene(RED), scene(BLUE)]
    goals = place_targets(SCENES, tokenizer, items)
    prompts = [item.scene.prompt for item in items]
    ids = tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    head = PlacesHead(width=2, n_named=len(COLOURS), end_id=EOS_ID)
    with torch.no_grad():
        head.token.weight.copy_(torch.eye(2))
        head.token.bias.zero_()
        head.end.weight.copy_(torch.eye(2).repeat(len(COLOURS), 1))
        head.end.bias.zero_()
    # What the encoder would give if it knew: one place a prompt, at each of its tokens.
    place = torch.stack([g[~g.isnan()].view(-1, 2)[0] for g in goals["token_places"]])
    text = place[:, None].expand(-1, ids.shape[1], -1)
    nothing = {name: torch.full_like(goal, torch.nan) for name, goal in goals.items()}
    with torch.no_grad():
        assert head.loss(text, ids, goals) < 1e-12
        # Both errors are means of 0.1 squared.
        assert float(head.loss(text + 0.1, ids, goals)) == pytest.approx(0.02, rel=1e-5)
        assert head.loss(text, ids, nothing) == 0
