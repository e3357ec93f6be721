import pytest

import hydet
from hydet.engine.callbacks import PredictionImages, TrainingImages


def test_the_old_name_of_prediction_images_still_builds():
    config = {"_target_": "hydet.engine.callbacks.PredictionPictures", "score_threshold": 0.3, "pictures": 4}
    with pytest.warns(DeprecationWarning, match=r"renamed to PredictionImages\(num_images"):
        callback = hydet.instantiate(config)
    assert isinstance(callback, PredictionImages)
    assert (callback.score_threshold, callback.num_images, callback.folder) == (0.3, 4, "pictures")


def test_the_old_name_of_training_images_still_builds():
    with pytest.warns(DeprecationWarning, match="renamed to TrainingImages"):
        callback = hydet.instantiate({"_target_": "hydet.engine.callbacks.ModelPictures", "folder": None})
    assert isinstance(callback, TrainingImages) and callback.folder is None
