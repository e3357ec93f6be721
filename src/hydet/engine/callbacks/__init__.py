"""What happens around the training loop; see ``Callback``."""

from .callback import Callback
from .checkpoints import Checkpoints
from .console_log import ConsoleLog
from .early_stopping import EarlyStopping
from .ema import EMA
from .evaluation import Evaluation
from .jsonl_log import JsonlLog
from .model_pictures import ModelPictures
from .nan_guard import NanGuard
from .precise_batch_norm import PreciseBatchNorm
from .prediction_pictures import PredictionPictures
from .tensorboard_log import TensorBoardLog

__all__ = [
    "EMA",
    "Callback",
    "Checkpoints",
    "ConsoleLog",
    "EarlyStopping",
    "Evaluation",
    "JsonlLog",
    "ModelPictures",
    "NanGuard",
    "PreciseBatchNorm",
    "PredictionPictures",
    "TensorBoardLog",
]
