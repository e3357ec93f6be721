"""Replacement of the default model if the user named none."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hydet.config import compose
from hydet.runs.label_check import FITTING_DEFAULTS

__all__ = ["compose_fitting_model"]


def compose_fitting_model() -> DictConfig | None:
    """Compose ``model`` for data without masks, as the command line of this job would with that model.

    Returns:
        The section ``model``, with unresolved interpolations; None if the command line names a model or changes it.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    option = FITTING_DEFAULTS.get(str(hydra.runtime.choices.get("model")))
    keys = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    if option is None or any(key.replace("/", ".").split(".")[0] in ("model", "experiment") for key in keys):
        return None
    folders = [
        source.path
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" and source.path
    ]
    config = compose(
        *overrides, f"model={option}", config_name=str(hydra.job.config_name), config_dir=folders
    )
    model = config.model
    assert isinstance(model, DictConfig)  # each option in conf/model is a mapping
    return model
