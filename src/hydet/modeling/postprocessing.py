"""Rescaling of results from the resolution of the network input to the output resolution."""

from __future__ import annotations

from torch import Tensor

from hydet.structures import Instances, ROIMasks, SemanticScores

__all__ = ["detector_postprocess", "sem_seg_postprocess"]


def detector_postprocess(
    results: Instances,
    output_height: int,
    output_width: int,
    mask_threshold: float = 0.5,
    *,
    paste_masks: bool = True,
) -> Instances:
    """Rescale detections to the output resolution and paste their masks into it.

    Boxes are scaled and clipped to the output, detections with empty boxes are dropped, masks are pasted, and keypoints
    are scaled but never clipped. ``results`` does not change.

    Args:
        results: detections in the frame of ``results.image_size``, with ``pred_boxes`` or ``proposal_boxes`` and
            optionally ``pred_masks``, ``(N, 1, M, M)`` probabilities, and ``pred_keypoints``, ``(N, K, 3)`` as
            (x, y, score).
        output_height: height of the output in pixels.
        output_width: width of the output in pixels.
        mask_threshold: probability from which on a pixel belongs to a mask.
        paste_masks: False leaves ``pred_masks`` relative to the boxes, as ``ROIMasks``: 100 pasted masks of a photo of
            12 megapixels take 1.2 GB.

    Returns:
        New ``Instances`` of size ``(output_height, output_width)``; ``pred_masks`` is ``(N, H, W)`` bool.

    Raises:
        ValueError: if ``results`` have neither ``pred_boxes`` nor ``proposal_boxes``.
    """
    name = next((n for n in ("pred_boxes", "proposal_boxes") if results.has(n)), None)
    if name is None:
        raise ValueError(
            f"detector_postprocess needs pred_boxes or proposal_boxes, got {sorted(results.get_fields())}"
        )
    output_size = (int(output_height), int(output_width))
    scale_y, scale_x = (new / old for new, old in zip(output_size, results.image_size, strict=True))

    scaled = results.get(name).clone()
    scaled.scale(scale_x, scale_y)
    scaled.clip(output_size)
    final = Instances(output_size, **{**results.get_fields(), name: scaled})
    final = final[scaled.nonempty()]
    if final.has("pred_masks"):
        masks = final.pred_masks
        if not isinstance(masks, ROIMasks):
            masks = ROIMasks(masks[:, 0])
        if paste_masks:
            final.pred_masks = masks.to_bitmasks(final.get(name), *output_size, mask_threshold).tensor
        else:
            final.pred_masks = masks
    if final.has("pred_keypoints"):
        keypoints = final.pred_keypoints
        final.pred_keypoints = keypoints * keypoints.new_tensor([scale_x, scale_y, 1.0])
    return final


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Crop the padding of semantic scores and resize them to the output resolution.

    Args:
        result: ``(C, H, W)`` scores of the padded input.
        img_size: (height, width) of the input before padding.
        output_height: height of the output in pixels.
        output_width: width of the output in pixels.

    Returns:
        ``(C, output_height, output_width)`` scores, resized bilinearly, at least float32.
    """
    return SemanticScores(result[:, : img_size[0], : img_size[1]], (output_height, output_width)).resize()
