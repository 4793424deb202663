"""What a model draws where no data is named: what it was trained on."""

import pytest

from tests.comparisons.fakes import FakeBackend
from wordlight.comparisons.datasets.images.opening import open_data, open_images
from wordlight.comparisons.studies.entanglement import study_entanglement
from wordlight.comparisons.studies.texts import texts_of_scenes


class _Named(FakeBackend):
    def __init__(self, model_id: str) -> None:
        super().__init__()
        self.model_id = model_id


@pytest.mark.parametrize(
    ("model", "first"),
    [("scenes", "scenes"), ("things", "things"), ("things-dit", "things"), ("other", "scenes")],
)
def test_images_are_of_the_prompts_that_the_model_was_trained_on(model, first):
    backend = _Named(model)
    data = open_data(None, "raise", {"calibration": 1, "test": 1})
    calibration, test = open_images(data, backend, calibration=1, n=1, seed=0)
    assert calibration.samples == (f"{first}-calibration-0000",)
    assert test.samples == (f"{first}-test-0000",)
    texts = texts_of_scenes(backend, 1)
    assert texts.samples == test.samples
    assert [text.text for text in texts.texts] == list(test.prompts)


def test_a_study_of_shapes_refuses_a_model_of_nouns():
    with pytest.raises(ValueError, match="coloured shapes, which things-dit"):
        study_entanglement(_Named("things-dit"), n=1)
