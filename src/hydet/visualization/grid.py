"""Pictures side by side, and pictures in files."""

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

from hydet.visualization.canvas import as_rgb, font_of

_BACKGROUND = (250, 250, 250)
_INK = (40, 40, 40)


def picture_grid(
    rows: Sequence[Sequence[Tensor]],
    *,
    column_captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    cell_side: int = 400,
    gap: int = 12,
) -> Tensor:
    """Arrange pictures in rows and columns, all of a similar size.

    Args:
        rows: uint8 ``(3, H, W)`` pictures of any sizes, such as ``[[predictions, ground truth], ...]``. Rows may
            differ in length.
        column_captions: a line above each column.
        row_captions: a line above each row.
        cell_side: pictures with a longer side are reduced to it; those that fit in it twice or more are enlarged
            by a whole factor, pixel by pixel, so that they stay sharp.
        gap: pixels between pictures.

    Returns:
        uint8 ``(3, H, W)``.

    Raises:
        ValueError: if there is no picture.
    """
    cells = [[_fitted(as_rgb(picture), cell_side) for picture in row] for row in rows]
    cells = [row for row in cells if row]
    if not cells:
        raise ValueError("picture_grid takes at least one picture, got none")
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
    font = font_of(size)

    lefts = [gap + sum(widths[:i]) + gap * i for i in range(num_columns)]
    for left, width, text in zip(lefts, widths, column_captions):
        text = _shortened(draw, text, font, width)
        draw.text((left + width / 2, gap / 2 + line / 2), text, fill=_INK, font=font, anchor="mm")
    top = header + gap
    for i, (row, height) in enumerate(zip(cells, heights)):
        if i < len(row_captions):
            text = _shortened(draw, row_captions[i], font, total_width - 2 * gap)
            draw.text((gap, top + caption / 2), text, fill=_INK, font=font, anchor="lm")
        top += caption
        for left, width, cell in zip(lefts, widths, row):
            place = (left + (width - cell.shape[2]) // 2, top + (height - cell.shape[1]) // 2)
            page.paste(Image.fromarray(cell.permute(1, 2, 0).contiguous().numpy()), place)
        top += height + gap
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def save_png(picture: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write a uint8 ``(3, H, W)`` picture as a PNG file, whole or not at all; creates missing folders.

    Returns:
        The path written.
    """
    path = Path(path)
    image = Image.fromarray(as_rgb(picture).permute(1, 2, 0).contiguous().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    image.save(unfinished, format="PNG")
    unfinished.replace(path)
    return path


def _fitted(picture: Tensor, side: int) -> Tensor:
    """Reduce a large picture, repeat the pixels of a small one."""
    height, width = picture.shape[1:]
    factor = side / max(height, width)
    if factor >= 1:
        whole = math.floor(factor)
        return picture.repeat_interleave(whole, dim=1).repeat_interleave(whole, dim=2)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(picture[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: object, width: float) -> str:
    """Cut ``text`` so that it fits ``width`` pixels."""
    if draw.textlength(text, font=font) <= width:  # type: ignore[arg-type]
        return text
    while text and draw.textlength(text + "…", font=font) > width:  # type: ignore[arg-type]
        text = text[:-1]
    return text + "…"
