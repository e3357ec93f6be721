"""Callbacks of the training loop; see ``Callback``."""

from .callback import Callback, CallbackPhase
from .console_log import ConsoleLog
from .early_stopping import EarlyStopping
from .ema import EMA
from .evaluation import Evaluation
from .jsonl_log import JsonlLog
from .logger import Logger
from .nan_guard import NanGuard
from .periodic_checkpoints import Checkpoints
from .precise_batch_norm import PreciseBatchNorm
from .prediction_images import PredictionImages
from .renamed import ModelPictures as ModelPictures  # not listed in __all__, to be removed
from .renamed import PredictionPictures as PredictionPictures
from .tensorboard_log import TensorBoardLog
from .training_images import TrainingImages

__all__ = [
    "EMA",
    "Callback",
    "CallbackPhase",
    "Checkpoints",
    "ConsoleLog",
    "EarlyStopping",
    "Evaluation",
    "JsonlLog",
    "Logger",
    "NanGuard",
    "PreciseBatchNorm",
    "PredictionImages",
    "TensorBoardLog",
    "TrainingImages",
]
