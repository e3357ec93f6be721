"""``hydet.load``: a trained model that is ready to predict, evaluate and export."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from rich.progress import track as with_progress

from hydet.config import ConfigError, compose
from hydet.data import (
    DetectionDataset,
    ImageReader,
    InputMapper,
    Metadata,
    RecordSource,
    as_detection_dataset,
)
from hydet.data.images.value_range import ValueRange
from hydet.engine.checkpoint_search import VerifyHashes
from hydet.export import Description, ExportFormat, Precision, is_exported
from hydet.modeling import InferenceMode

from .build import build_mapper
from .changes import expand_changes
from .evaluation_run import check_evaluation, evaluate_detector
from .export_run import export_detector
from .open_checkpoint import LoadedDetector, faults_of
from .open_weights import open_detector
from .prediction import Prediction, PredictsImages, build_image_reader, predict_images
from .result import DEFAULT_PLOT_THRESHOLD, Result
from .result_filter import ObjectFilter
from .results import DEFAULT_RATE, Results
from .sources import open_source
from .sources.in_memory import Channels
from .tiling import add_tiling
from .tracking import ObjectTracker
from .tta import add_tta, check_tile_and_tta, read_tta

__all__ = ["Detector", "load"]

# Keys of the evaluate command that have no effect on a loaded model.
_CHOSEN_BY_LOAD = ("checkpoint", "device", "inference", "compile", "allow", "verify", "changes", "output_dir")
# Treatment of images that cannot be read: a warning and no result, an error, or no result.
OnFailure = Literal["warn", "raise", "skip"]


def load(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    inference: InferenceMode = "fast",
    compile: bool = False,
    allow: Sequence[str] = (),
    verify: VerifyHashes = True,
    value_range: ValueRange | None = None,
    max_pixels: int | None = None,
    **changes: Any,
) -> Detector:
    """Open a trained model.

    Args:
        source: a checkpoint; the output folder of a run, which stands for its last checkpoint; a weight file of another
            library or its address; the name of a published recipe, such as
            ``"COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"`` (see ``docs/weights.md``); or an exported model, whose
            folder also holds ``metadata.json``.
        device: ``"auto"`` selects CUDA if available and the CPU otherwise; or ``"cpu"``, ``"cuda:1"``, ...
        inference: ``"fast"``, ``"exact"`` or ``"bf16"``; see :func:`hydet.optimize`.
        compile: compile the tensor core of the model; pays off for many images of few sizes.
        allow: further packages whose classes the config of the checkpoint may build.
        verify: compare the hashes of the checkpoint's files before they are read.
        value_range: values that become 0 and 255 in images with more than 8 bits per channel; by default as in training.
            See :class:`hydet.data.ImageReader`.
        max_pixels: largest image file in pixels; by default as in training.
        **changes: changes of the stored config in its sections ``model`` and ``augment``, with keys that may be dotted as
            on the command line.

    Returns:
        The model in evaluation mode on its device, as a :class:`Detector`.

    Raises:
        FileNotFoundError: if there is nothing at ``source``.
        ValueError: if a file is damaged, its model is not known, its config builds something that is not trusted, or a
            change does not fit.
        TypeError: if a keyword is unknown.

    Example:
        >>> detector = hydet.load("runs/a", model={"roi_heads.box_predictor.test_nms_thresh": 0.6})
        >>> detector.predict("photo.jpg")[0].plot()
    """
    open_as = partial(
        open_detector,
        source,
        device=device,
        allowed=allow,
        changes=expand_changes(changes),
        verify=verify,
    )
    return Detector.from_loaded(
        open_as(inference=inference, compile=compile),
        value_range=value_range,
        max_pixels=max_pixels,
        open_exact=None if is_exported(source) else partial(open_as, inference="exact"),
    )


class Detector:
    """A trained model with everything that it needs to predict images from anywhere.

    :func:`hydet.load` makes one from a file. From a model in memory::

        mapper = InputMapper(training=False, mask_format=None, transforms=ResizeShortestEdge(...), channel_order="BGR")
        detector = Detector(model.eval(), mapper, Metadata(thing_classes=("cat", "dog")))

    Args:
        model: turns a list of model inputs into a list of results; a module is in evaluation mode.
        mapper: makes model inputs from records: the size of the images and the order of their channels.
        metadata: names of the classes, and their ids in COCO files.
        read: settings for reading image files.
        loaded: the checkpoint that the model came from, if any.
        open_exact: opens the same model in its exact form, which :meth:`export` writes.
        origin: where the model came from, for messages; by default as ``loaded`` states it.
    """

    def __init__(
        self,
        model: PredictsImages,
        mapper: InputMapper,
        metadata: Metadata,
        *,
        read: ImageReader | None = None,
        loaded: LoadedDetector | None = None,
        open_exact: Callable[[], LoadedDetector] | None = None,
        origin: str = "",
    ) -> None:
        self.model = model
        self.mapper = mapper
        self.metadata = metadata
        self.read = ImageReader() if read is None else read
        self.loaded = loaded
        self._open_exact = open_exact
        self._origin = origin

    @classmethod
    def from_loaded(
        cls,
        loaded: LoadedDetector,
        *,
        value_range: ValueRange | None = None,
        max_pixels: int | None = None,
        open_exact: Callable[[], LoadedDetector] | None = None,
    ) -> Detector:
        """Wrap an open checkpoint.

        Args:
            loaded: the checkpoint.
            value_range: see :func:`load`.
            max_pixels: see :func:`load`.
            open_exact: see :class:`Detector`.

        Raises:
            ConfigError: if the transforms of the config cannot be built.
        """
        reading = OmegaConf.create({"value_range": value_range, "max_pixels": max_pixels})
        with faults_of(loaded.checkpoint):
            mapper = build_mapper(loaded.config, loaded.model, training=False, labeled=False)
            read = build_image_reader(loaded.config, reading)
        return cls(loaded.model, mapper, loaded.metadata, read=read, loaded=loaded, open_exact=open_exact)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0 to K-1."""
        return self.metadata.thing_classes

    @property
    def origin(self) -> str:
        """Where the model came from, such as ``"runs/a/checkpoints/step_00000350 (step 350)"``; may be empty."""
        return self._origin if self.loaded is None else self.loaded.origin

    def naming_faults(self) -> AbstractContextManager[None]:
        """Return a context in which errors of the model name the checkpoint whose config built it."""
        return faults_of(None if self.loaded is None else self.loaded.checkpoint)

    def __repr__(self) -> str:
        """Return the class of the model, the number of classes and the origin."""
        origin = f", from {self.origin}" if self.origin else ""
        return f"Detector({type(self.model).__name__}, {len(self.class_names)} classes{origin})"

    def predict(
        self,
        source: object,
        *,
        batch_size: int = 1,
        score_threshold: float | Mapping[str, float] | None = None,
        classes: Sequence[str | int] | None = None,
        max_detections: int | None = None,
        tile: int | None = None,
        overlap: float = 0.2,
        tta: str | Mapping[str, Any] | None = None,
        track: bool = False,
        channels: Channels = "RGB",
        on_failure: OnFailure = "warn",
        progress: bool = False,
    ) -> Results:
        """Predict images.

        Images are read and predicted during the iteration over the results, in order. ``results[0]`` predicts the first
        image only, and ``list(results)`` all of them.

        Args:
            source: the path of an image or folder, a pattern such as ``"photos/*.jpg"``, an ``http(s)://`` address, the
                content of an image file as bytes, a Pillow image, an array ``(H, W, 3)`` or ``(H, W)``, a tensor
                ``(3, H, W)``, a video file, or a list or generator of these. Arrays and tensors hold uint8, other integers, or floats
                in [0, 1] or [0, 255].
            batch_size: images or tiles per forward pass.
            score_threshold: lowest score of an object, or one per class name; by default that of the model.
            classes: names or indices of the classes to keep; by default all.
            max_detections: largest number of objects per image; by default that of the model.
            tile: side in pixels of overlapping tiles in which the model sees large images, in their original resolution;
                None for whole images.
            overlap: fraction of a tile that its neighbor covers; objects up to that size are seen whole by some tile.
            tta: test-time augmentation: ``"default"``, ``"flip"``, or settings that replace those of
                ``conf/tta/default.yaml``, such as ``{"min_sizes": [600, 800], "max_size": 1333}``.
            track: number the objects of a video; ``result.track_ids`` has the numbers. Needs ``hydet[track]``.
            channels: order of the channels of arrays and tensors; ``"BGR"`` for images of OpenCV.
            on_failure: an image of a folder, list or generator that cannot be read has no result, and is named by a
                warning and in ``results.failed``. ``"skip"`` leaves out the warning, and ``"raise"`` raises
                ``DataError``, as always for a single image.
            progress: show a progress bar.

        Returns:
            The results, one :class:`Result` per image.

        Raises:
            FileNotFoundError: if a path does not exist.
            ValueError: if a threshold, class or number is wrong, or an image in memory has the wrong shape.
            TypeError: if ``source`` is nothing of the above.
            ConfigError: if the model needs proposals that come with the data, or the settings of ``tta`` do not fit.
        """
        if self.mapper.max_proposals is not None:
            raise ConfigError("the model needs proposals that come with the data; src.evaluate can read them")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        check_tile_and_tta(tile, tta)
        if on_failure not in ("warn", "raise", "skip"):
            raise ValueError(f'on_failure must be "warn", "raise" or "skip", got {on_failure!r}')
        images = open_source(source, read=self.read, channels=channels)
        select = ObjectFilter(
            self.metadata, score_threshold=score_threshold, classes=classes, max_detections=max_detections
        )
        tracker = ObjectTracker(rate=images.rate or DEFAULT_RATE) if track else None
        failed: list[str] = []
        model: PredictsImages = self.model
        mapper = self.mapper
        if tile is not None:
            model, mapper = add_tiling(
                self.model, self.mapper, tile=tile, overlap=overlap, batch_size=batch_size
            )
        if tta is not None:
            model, _ = add_tta(read_tta(tta), self.model, self.mapper, self.metadata)
            mapper = self.mapper.without_transforms()
        failure = "raise" if images.is_single else on_failure
        predictions = predict_images(
            model, mapper, images, batch_size=batch_size, failed=None if failure == "raise" else failed
        )
        stream: Iterable[Result] = self._results(
            predictions, select, tracker, failed, failure, score_threshold
        )
        if progress:
            stream = with_progress(stream, "predicting", total=images.count, transient=True)
        return Results(stream, failed, rate=images.rate, count=images.count)

    def evaluate(
        self,
        data: DetectionDataset | RecordSource | str | None = None,
        *overrides: str,
        output_dir: str | Path | None = None,
        progress: bool = False,
    ) -> dict[str, float]:
        """Compute the metrics of the model on a dataset, as ``python -m src.evaluate`` does.

        Args:
            data: a dataset with the classes of the model; the name of an option of ``conf/data``, such as ``"shapes"``; or
                an override of the command, such as ``"data=coco_instance"``. By default the validation data of the run;
                an exported model has none.
            *overrides: further overrides, such as ``"data.val.json=my/val.json"`` or ``"tta=default"``.
            output_dir: folder for files of results in the formats of COCO; by default none are written.
            progress: show a progress bar.

        Returns:
            The metrics by name, such as ``"box/AP"``.

        Raises:
            ConfigError: if the model has no config, an override is wrong, or the data do not fit the model.
        """
        if self.loaded is None:
            raise ConfigError(
                "this model came without a config; hydet.evaluation.evaluate runs any model on a loader"
            )
        if isinstance(data, str):
            overrides = (data if "=" in data else f"data={data}", *overrides)
            data = None
        for override in overrides:
            if override.lstrip("+").split("=")[0] in _CHOSEN_BY_LOAD:
                raise ConfigError(
                    f"{override}: the model is loaded already; this is an argument of hydet.load"
                )
        config = compose("checkpoint=loaded", *overrides, config_name="evaluate")
        check_evaluation(config)
        evaluation = evaluate_detector(
            self.loaded,
            config,
            dataset=None if data is None else as_detection_dataset(data),
            output_dir=None if output_dir is None else Path(output_dir),
            progress=progress,
        )
        return evaluation.metrics

    def export(
        self,
        path: str | Path,
        *,
        format: ExportFormat,
        precision: Precision = "fp32",
        sizes: Sequence[tuple[int, int]] | None = None,
        images: str | None = None,
    ) -> Description:
        """Write the model as a file of another runtime, with ``metadata.json`` beside it; see ``docs/export.md``.

        The file is compared with the model on images before it gets its name. :func:`hydet.load` opens it.

        Args:
            path: the new file, which ends in ``.onnx``, or in ``.pt2`` for the other formats.
            format: ``"onnx"``, ``"torch_export"`` or ``"aoti"``.
            precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``, of the backbone and the heads.
            sizes: (height, width) of the images that the graph takes, one file per size; None for any size.
            images: file, folder or pattern of images for the comparison; by default generated images of shapes.

        Returns:
            The content of ``metadata.json``.

        Raises:
            ConfigError: if the model did not come from :func:`hydet.load`, or is an exported model already.
            ValueError: if an argument is wrong, or the format cannot express the model.
        """
        if self._open_exact is None:
            raise ConfigError("only a checkpoint or weight file that hydet.load has opened can be exported")
        # The fast forms have other weights, so the model is opened again.
        return export_detector(
            self._open_exact(), Path(path), format=format, precision=precision, sizes=sizes, images=images
        )

    def _results(
        self,
        predictions: Iterable[Prediction],
        select: ObjectFilter,
        tracker: ObjectTracker | None,
        failed: list[str],
        on_failure: OnFailure,
        score_threshold: float | Mapping[str, float] | None,
    ) -> Iterator[Result]:
        plot_threshold = DEFAULT_PLOT_THRESHOLD if score_threshold is None else 0.0
        num_reported = 0
        for record, _, output, time in predictions:
            if on_failure == "warn":
                num_reported = _warn(failed, num_reported)
            result = Result(
                image=record.image,
                output=select(output),
                metadata=self.metadata,
                name=record.file_name,
                index=record.image_id - 1,
                plot_threshold=plot_threshold,
                time=time,
            )
            yield result if tracker is None else _tracked(result, tracker)
        if on_failure == "warn":
            _warn(failed, num_reported)


def _tracked(result: Result, tracker: ObjectTracker) -> Result:
    """Return the result with ``track_ids``."""
    result.check_classes("track")
    time = result.index / DEFAULT_RATE if result.time is None else result.time
    instances = tracker.update(result.instances, time=time)
    return dataclasses.replace(result, output={**result.output, "instances": instances})


def _warn(failed: Sequence[str], num_reported: int) -> int:
    """Warn of the failures after the first ``num_reported``; return how many there are now."""
    for line in failed[num_reported:]:
        # The frames in between are this function, the generator of results and the iterator over it.
        warnings.warn(f"skipped an image: {line}", stacklevel=4)
    return len(failed)
