"""Images side by side, and images in files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from hydet.files import atomic_file
from hydet.visualization.canvas import as_rgb
from hydet.visualization.fonts import drawable_text, shorten

__all__ = ["image_grid", "save_png"]

_BACKGROUND = (250, 250, 250)
_INK = (40, 40, 40)


def image_grid(
    rows: Sequence[Sequence[Tensor]],
    *,
    column_captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    cell_side: int = 400,
    gap: int = 12,
) -> Tensor:
    """Arrange images in rows and columns, all at a similar size.

    Args:
        rows: uint8 ``(3, H, W)`` images of any size, such as ``[[predictions, ground truth], ...]``. Rows may differ in
            length.
        column_captions: line of text above each column.
        row_captions: line of text above each row.
        cell_side: reduce images whose longer side exceeds this, in pixels. Images that fit in it twice or more are
            enlarged by a whole factor, by repeating their pixels, so that they stay sharp.
        gap: pixels between images.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        ValueError: if there is no image.
    """
    cells = [[_fit(as_rgb(image), cell_side) for image in row] for row in rows]
    cells = [row for row in cells if row]
    if not cells:
        raise ValueError("image_grid takes at least one image, got none")
    num_columns = max(len(row) for row in cells)
    widths = [max(row[i].shape[2] for row in cells if i < len(row)) for i in range(num_columns)]
    heights = [max(cell.shape[1] for cell in row) for row in cells]
    size = max(11, round(cell_side / 22))
    line = round(1.6 * size)
    header = line if column_captions else 0
    caption = line if row_captions else 0
    total_width = sum(widths) + gap * (num_columns + 1)
    total_height = header + sum(heights) + (gap + caption) * len(cells) + gap
    page = Image.new("RGB", (total_width, total_height), _BACKGROUND)
    draw = ImageDraw.Draw(page)

    lefts = [gap + sum(widths[:i]) + gap * i for i in range(num_columns)]
    for left, width, text in zip(lefts, widths, column_captions):
        text, font = drawable_text(text, size)
        text = shorten(draw, text, font, width)
        draw.text((left + width / 2, gap / 2 + line / 2), text, fill=_INK, font=font, anchor="mm")
    top = header + gap
    for i, (row, height) in enumerate(zip(cells, heights)):
        if i < len(row_captions):
            text, font = drawable_text(row_captions[i], size)
            text = shorten(draw, text, font, total_width - 2 * gap)
            draw.text((gap, top + caption / 2), text, fill=_INK, font=font, anchor="lm")
        top += caption
        for left, width, cell in zip(lefts, widths, row):
            position = (left + (width - cell.shape[2]) // 2, top + (height - cell.shape[1]) // 2)
            page.paste(Image.fromarray(cell.permute(1, 2, 0).contiguous().numpy()), position)
        top += height + gap
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def save_png(image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write an image as a PNG file.

    Args:
        image: uint8 ``(3, H, W)`` RGB.
        path: path of the file; missing folders are created. The file appears under this name once it is complete.

    Returns:
        ``path``.
    """
    path = Path(path)
    pixels = Image.fromarray(as_rgb(image).permute(1, 2, 0).contiguous().numpy())
    with atomic_file(path, flush=False) as unfinished:
        pixels.save(unfinished, format="PNG")
    return path


def _fit(image: Tensor, side: int) -> Tensor:
    """Reduce a large image, or repeat the pixels of a small one."""
    height, width = image.shape[1:]
    factor = side / max(height, width)
    if factor >= 1:
        whole = math.floor(factor)
        return image.repeat_interleave(whole, dim=1).repeat_interleave(whole, dim=2)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
