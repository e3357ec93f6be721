import pytest

import hydet
from hydet.engine.callbacks import PredictionImages, TrainingImages


def test_configs_of_version_0_1_with_prediction_pictures_still_build():
    config = {"_target_": "hydet.engine.callbacks.PredictionPictures", "score_threshold": 0.3, "pictures": 4}
    with pytest.warns(DeprecationWarning, match=r"renamed to PredictionImages\(num_images"):
        callback = hydet.instantiate(config)
    assert isinstance(callback, PredictionImages)
    assert (callback.score_threshold, callback.num_images, callback.folder) == (0.3, 4, "pictures")


def test_configs_of_version_0_1_with_model_pictures_still_build():
    with pytest.warns(DeprecationWarning, match="renamed to TrainingImages"):
        callback = hydet.instantiate({"_target_": "hydet.engine.callbacks.ModelPictures", "folder": None})
    assert isinstance(callback, TrainingImages) and callback.folder is None
