"""Types of one model input and one model result."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor

from .instances import Instances
from .semantic_scores import SemanticScores

__all__ = ["DefersPasting", "Losses", "ModelInput", "ModelOutput", "SegmentInfo"]

# Scalar losses by name; their sum is what training minimizes.
Losses = dict[str, Tensor]


class ModelInput(TypedDict):
    """One image of a batch, and its annotations.

    Keys:
        image: ``(C, H, W)`` in 0 to 255, channels in the model's ``input_format``.
        instances: ground truth in the frame of ``image``, with ``gt_boxes``, ``gt_classes`` and, as the model needs
            them, ``gt_masks`` and ``gt_keypoints``.
        sem_seg: ``(H, W)`` integer labels.
        proposals: ``proposal_boxes`` and ``objectness_logits``, for models without a proposal generator.
        height: height of the results in pixels; the height of ``image`` by default.
        width: width of the results in pixels; the width of ``image`` by default.
        file_name: path of the image file, for messages.
        image_id: id of the image in its dataset.
        ground_truth: labels in the frame of the original image, for evaluators; models ignore it.
    """

    image: Tensor
    instances: NotRequired[Instances]
    sem_seg: NotRequired[Tensor]
    proposals: NotRequired[Instances]
    height: NotRequired[int]
    width: NotRequired[int]
    file_name: NotRequired[str]
    image_id: NotRequired[int]
    ground_truth: NotRequired[Mapping[str, Any]]


class SegmentInfo(TypedDict):
    """One segment of a panoptic result.

    Keys:
        id: value of the segment's pixels in the panoptic map, at least 1; 0 marks pixels without a segment.
        isthing: True for objects, False for stuff.
        category_id: contiguous class of the object, or label of the stuff.
        score: confidence of an object.
        instance_id: index of the object in ``instances``.
        area: pixels of a stuff segment.
        iscrowd: ground truth only; True for a group of objects that evaluation ignores.
    """

    id: int
    isthing: bool
    category_id: int
    score: NotRequired[float]
    instance_id: NotRequired[int]
    area: NotRequired[float]
    iscrowd: NotRequired[bool]


class ModelOutput(TypedDict, total=False):
    """Results for one image; a model returns the keys of its tasks.

    Keys:
        instances: detections in the output frame, with ``pred_boxes``, ``scores``, ``pred_classes`` and, as the
            model predicts them, ``pred_masks`` and ``pred_keypoints``.
        proposals: ``proposal_boxes`` and ``objectness_logits``.
        sem_seg: ``(S, H, W)`` scores of the semantic labels; ``SemanticScores`` from ``detect_unpasted``.
        panoptic_seg: ``(H, W)`` int32 map of segment ids, and one :class:`SegmentInfo` per segment.
    """

    instances: Instances
    proposals: Instances
    sem_seg: Tensor | SemanticScores
    panoptic_seg: tuple[Tensor, list[SegmentInfo]]


@runtime_checkable
class DefersPasting(Protocol):
    """A model that can return masks and semantic scores that are not pasted or resized; see ``GeneralizedRCNN``."""

    def detect_unpasted(
        self, batched_inputs: Sequence[ModelInput], *, with_losses: bool
    ) -> tuple[Losses, Sequence[ModelOutput]]:
        """Return losses, if selected, and one result per image."""
        ...
