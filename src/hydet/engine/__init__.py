"""Training: the loop, callbacks, checkpoints, optimizer settings and learning-rate schedules."""

from hydet.distributed import (
    barrier,
    distributed_session,
    is_main_process,
    local_rank,
    rank,
    resolve_precision,
    select_device,
    world_size,
)

from . import callbacks
from .callbacks import Callback, CallbackPhase
from .checkpoint_folder import Checkpoint, save_checkpoint
from .checkpoint_search import find_last_checkpoint, list_checkpoints, load_checkpoint
from .interruption import TrainingInterrupted
from .parameters import ViTLayerDecay, build_optimizer, parameter_groups
from .schedules import constant, scale_lr, warmup_cosine, warmup_multistep
from .seeding import seed_everything
from .trainer import Trainer
from .weights import LoadReport, init_from, load_weights, read_weights

__all__ = [
    "Callback",
    "CallbackPhase",
    "Checkpoint",
    "LoadReport",
    "Trainer",
    "TrainingInterrupted",
    "ViTLayerDecay",
    "barrier",
    "build_optimizer",
    "callbacks",
    "constant",
    "distributed_session",
    "find_last_checkpoint",
    "init_from",
    "is_main_process",
    "list_checkpoints",
    "load_checkpoint",
    "load_weights",
    "local_rank",
    "parameter_groups",
    "rank",
    "read_weights",
    "resolve_precision",
    "save_checkpoint",
    "scale_lr",
    "seed_everything",
    "select_device",
    "warmup_cosine",
    "warmup_multistep",
    "world_size",
]
