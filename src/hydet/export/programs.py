"""Files of each format: writing, and opening as a function of images and sizes."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from hydet._version import __version__

from .capture import lower_ops
from .description import ExportFormat
from .inference_graph import INPUT_NAMES

__all__ = ["SUFFIXES", "Program", "check_tools", "open_program", "versions_of", "write_program"]

# Maps 8-bit images (B, 3, H, W) and sizes (B, 2) to outputs by name.
Program = Callable[[Tensor, Tensor], Mapping[str, Tensor]]

SUFFIXES: Mapping[ExportFormat, str] = {"onnx": ".onnx", "torch_export": ".pt2", "aoti": ".pt2"}
_PACKAGES: Mapping[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
    "aoti": (),
}


def check_tools(format: ExportFormat) -> None:
    """Check that the packages and compilers of a format are installed.

    Raises:
        ImportError: if a package is missing.
        ValueError: if there is no C++ compiler.
    """
    missing = [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"format=onnx needs {', '.join(missing)}: pip install 'hydet[export]' (or the packages alone)"
        )
    if (
        format == "aoti"
        and platform.system() != "Windows"
        and not (shutil.which("g++") or shutil.which("c++"))
    ):
        raise ValueError("format=aoti needs a C++ compiler: install g++, or export to torch_export or onnx")


def versions_of(format: ExportFormat) -> dict[str, str]:
    """Return the versions of hydet and of the libraries that write a format."""
    names = ("torch", "torchvision", *_PACKAGES[format])
    return {"hydet": __version__} | {name: importlib.import_module(name).__version__ for name in names}


def write_program(
    program: ExportedProgram, path: Path, format: ExportFormat, output_names: Sequence[str]
) -> ExportedProgram:
    """Write a captured program.

    Args:
        program: from ``capture``.
        path: the new file.
        format: see ``FORMATS``.
        output_names: names of the outputs, in order.

    Returns:
        The program as it was written, with hydet's ops replaced where operators of PyTorch exist.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn about their own parts
        if format == "onnx":
            lowered = lower_ops(program, keep_suppression=True)
            _write_onnx(lowered, path, output_names)
            return lowered
        lowered = lower_ops(program)
        if format == "torch_export":
            torch.export.save(lowered, path)
        else:
            from torch._inductor import aoti_compile_and_package

            with torch.no_grad():
                aoti_compile_and_package(lowered, package_path=str(path))
    return lowered


def _write_onnx(program: ExportedProgram, path: Path, output_names: Sequence[str]) -> None:
    from .onnx_ops import OPSET, TRANSLATIONS

    with torch.no_grad(), _only_warnings_of("onnx_ir", "onnxscript"):
        exported = torch.onnx.export(
            program,
            input_names=list(INPUT_NAMES),
            output_names=list(output_names),
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert exported is not None
    _name_sizes(exported.model.graph.outputs)
    exported.save(str(path), external_data=False)


@contextmanager
def _only_warnings_of(*names: str) -> Iterator[None]:
    """Keep the steps of other libraries, hundreds of lines, out of the log of the user."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _name_sizes(outputs: Sequence[Any]) -> None:
    """Replace sizes that are formulas of the input's, which fill pages in a viewer, by names."""
    import onnx_ir

    for output in outputs:
        if output.shape is None:
            continue
        sizes: list[int | str | None] = []
        for axis, size in enumerate(output.shape):
            known = size if isinstance(size, int) else None
            sizes.append(known if known is not None else "batch" if axis == 0 else f"{output.name}_{axis}")
        output.shape = onnx_ir.Shape(sizes)


def open_program(
    path: Path, format: ExportFormat, device: torch.device, output_names: Sequence[str]
) -> Program:
    """Open a file that ``write_program`` wrote.

    Args:
        path: the file.
        format: its format.
        device: where it runs.
        output_names: names of the outputs, in order.
    """
    if format == "onnx":
        return _OnnxProgram(path, device, output_names)
    if format == "torch_export":
        module = torch.export.load(path).module()
        return lambda images, sizes: _on(device, module, images, sizes)
    from torch._inductor import aoti_load_package

    package = aoti_load_package(str(path))
    return lambda images, sizes: _on(device, package, images, sizes)


def _on(device: torch.device, run: Callable[..., Any], images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    with torch.no_grad():
        outputs: Mapping[str, Tensor] = run(images.to(device), sizes.to(device))
    return outputs


class _OnnxProgram:
    """A session of ONNX Runtime that takes and returns tensors."""

    def __init__(self, path: Path, device: torch.device, output_names: Sequence[str]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # warnings are about the exporter's choice of operators
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers.insert(0, "CUDAExecutionProvider")
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ValueError("device=cuda needs onnxruntime-gpu; this onnxruntime runs on the CPU only")
        self.device = device
        self.output_names = list(output_names)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def __call__(self, images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
        feeds = dict(zip(INPUT_NAMES, (images.cpu().numpy(), sizes.cpu().numpy()), strict=True))
        arrays = self.session.run(self.output_names, feeds)
        return {
            name: torch.from_numpy(array).to(self.device)
            for name, array in zip(self.output_names, arrays, strict=True)
        }
