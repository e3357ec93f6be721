"""The models that a benchmark compares, each with the work that is measured."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from hydet.config import ConfigError
from hydet.engine import select_device
from hydet.modeling import InferenceMode, MetaArchitecture, optimize, optimize_training
from hydet.structures import ModelInput

from .benchmark_inputs import calibrate, random_batch
from .build import build_model
from .torchvision_models import build_torchvision, calibrate_torchvision, to_torchvision

__all__ = ["Subject", "Variant", "Work", "build_subject", "build_work"]


@dataclass(frozen=True)
class Variant:
    """A form of a model.

    Attributes:
        mode: of ``hydet.modeling.optimize``. In training, ``"bf16"`` is the fast model under autocast.
        torchvision: use torchvision's model instead; ``"bf16"`` is autocast, the other modes are the same.
        compile: compile the tensor core; not for torchvision.
        cuda_graph: record the compiled core as a CUDA graph.
        tf32: allow matrix products and convolutions of a GPU to round their inputs to TF32.
    """

    mode: InferenceMode = "exact"
    torchvision: bool = False
    compile: bool = False
    cuda_graph: bool = False
    tf32: bool = False

    @property
    def precision(self) -> str:
        """``"bf16"``, ``"tf32"`` or ``"fp32"``."""
        return "bf16" if self.mode == "bf16" else "tf32" if self.tf32 else "fp32"

    @property
    def name(self) -> str:
        """Name in tables."""
        parts = ["torchvision"] if self.torchvision else [f"hydet, {self.mode}"]
        if self.torchvision and self.mode == "bf16":
            parts.append("bf16")
        if self.tf32:
            parts.append("tf32")
        if self.cuda_graph:
            parts.append("CUDA graph")
        elif self.compile:
            parts.append("compiled")
        return ", ".join(parts)


@dataclass(frozen=True)
class Subject:
    """The exact model with calibrated random weights, and a batch of random images."""

    model: MetaArchitecture
    batch: list[ModelInput]
    device: torch.device


@dataclass
class Work:
    """A model, and the call that is measured."""

    name: str
    model: nn.Module
    arguments: tuple[Any, ...]
    training: bool
    autocast: bool
    tf32: bool
    device: torch.device

    def run(self) -> object:
        """Run one inference, or one training step without the optimizer."""
        with _allowing_tf32(self.tf32):
            if not self.training:
                with torch.inference_mode(), self._autocast():
                    return self.model(*self.arguments)
            with self._autocast():
                losses = cast(dict[str, Tensor], self.model(*self.arguments))
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
            total.backward()
        for parameter in self.model.parameters():
            parameter.grad = None
        return total

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


@contextlib.contextmanager
def _allowing_tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32, which changes nothing on a CPU."""
    if not torch.cuda.is_available():
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def build_subject(config: DictConfig) -> Subject:
    """Build the exact model and the batch of a benchmark; the same values each time.

    Args:
        config: see ``conf/benchmark.yaml``.

    Raises:
        ConfigError: if the config describes no model of hydet, or one that needs precomputed proposals.
    """
    device = select_device(config.device)
    torch.manual_seed(0)
    model = build_model(config)
    if not isinstance(model, MetaArchitecture):
        raise ConfigError(f"{type(model).__name__} is not a model of hydet")
    if model.needs_proposals:
        raise ConfigError("a model without proposal generator cannot be measured: choose another model=")
    model.to(device)
    batch = random_batch(
        model,
        config.batch_size,
        (int(config.image_size[0]), int(config.image_size[1])),
        num_classes=config.num_classes,
        num_keypoints=config.num_keypoints,
        num_labels=config.num_stuff_classes,
    )
    calibrate(model, batch)
    return Subject(model, batch, device)


def build_work(config: DictConfig, subject: Subject, variant: Variant) -> Work:
    """Build a variant of the subject's model; the subject stays as it is.

    Raises:
        ConfigError: if torchvision has no such model.
    """
    training = config.work == "training"
    bf16 = variant.mode == "bf16"
    if variant.torchvision:
        return _torchvision_work(config, subject, variant, training)
    model = copy.deepcopy(subject.model)
    if training:
        model = model if variant.mode == "exact" else optimize_training(model)
    else:
        model = optimize(model, variant.mode, compile=variant.compile)
        if variant.cuda_graph:
            model.compile_core(cuda_graph=True)
    return Work(
        name=variant.name,
        model=model.train(training),
        arguments=(subject.batch,),
        training=training,
        autocast=training and bf16,
        tf32=variant.tf32,
        device=subject.device,
    )


def _torchvision_work(config: DictConfig, subject: Subject, variant: Variant, training: bool) -> Work:
    model = build_torchvision(
        subject.model, num_classes=config.num_classes, num_keypoints=config.num_keypoints
    ).to(subject.device)
    images, targets = to_torchvision(subject.batch, subject.device)
    calibrate_torchvision(model, images)
    return Work(
        name=variant.name,
        model=model.train(training),
        arguments=(images, targets) if training else (images,),
        training=training,
        autocast=variant.mode == "bf16",
        tf32=variant.tf32,
        device=subject.device,
    )
