"""Export of models to ``torch.export``, ONNX and AOTInductor, and running the files as models."""

from .agreement import ExportMismatchError
from .description import METADATA_FILE, Description, ExportedFile, ExportFormat, Precision
from .export_model import export_model
from .exported_model import ExportedModel, is_exported, open_exported

__all__ = [
    "METADATA_FILE",
    "Description",
    "ExportFormat",
    "ExportMismatchError",
    "ExportedFile",
    "ExportedModel",
    "Precision",
    "export_model",
    "is_exported",
    "open_exported",
]
