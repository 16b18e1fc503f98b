"""One image at a time: torchvision's formulas written out, and nothing done for speed."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Image = NDArray[np.uint8]  # (C, H, W)


def affine(
    image: Image,
    *,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
    center: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """`_get_inverse_affine_matrix`, `_gen_affine_grid` and `grid_sample`, nearest neighbour."""
    turn, sx, sy = (math.radians(value) for value in (angle, *shear))
    a = math.cos(turn - sy) / math.cos(sy)
    b = -math.cos(turn - sy) * math.tan(sx) / math.cos(sy) - math.sin(turn)
    c = math.sin(turn - sy) / math.cos(sy)
    d = -math.sin(turn - sy) * math.tan(sx) / math.cos(sy) + math.cos(turn)
    (cx, cy), (tx, ty) = center, translate
    matrix = [d, -b, 0.0, -c, a, 0.0]
    matrix[2] += matrix[0] * (-cx - tx) + matrix[1] * (-cy - ty) + cx
    matrix[5] += matrix[3] * (-cx - tx) + matrix[4] * (-cy - ty) + cy
    height, width = image.shape[1:]
    x = torch.linspace(-width * 0.5 + 0.5, width * 0.5 - 0.5, width, dtype=torch.float64)
    y = torch.linspace(-height * 0.5 + 0.5, height * 0.5 - 0.5, height, dtype=torch.float64)
    base = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width)], -1)
    half = torch.tensor([0.5 * width, 0.5 * height])
    theta = torch.tensor(matrix, dtype=torch.float64).reshape(2, 3)
    grid = (base.double() @ (theta.T / half)).reshape(1, height, width, 2)
    source = torch.from_numpy(image)[None].double()
    found = functional.grid_sample(source, grid, mode="nearest", align_corners=False)
    looked_up: Image = found[0].to(torch.uint8).numpy()
    return looked_up


def resized_crop(image: Image, top: int, left: int, height: int, width: int) -> Image:
    box = torch.from_numpy(image[:, top : top + height, left : left + width])[None].float()
    found = functional.interpolate(box, image.shape[1:], mode="bilinear", align_corners=False)
    enlarged: Image = found[0].round().to(torch.uint8).numpy()
    return enlarged


def grey(image: Image) -> Image:
    if len(image) != 3:
        first: Image = image[0]
        return first
    r, g, b = (torch.from_numpy(channel).float() for channel in image)
    found: Image = (0.2989 * r + 0.587 * g + 0.114 * b).to(torch.uint8).numpy()
    return found


def blend(image: Image, other: object, ratio: float) -> Image:
    first = torch.from_numpy(image).float()
    second = torch.as_tensor(other).float()
    mixed = (ratio * first + (1.0 - ratio) * second).clamp(0, 255)
    found: Image = mixed.to(torch.uint8).numpy()
    return found


def brightness(image: Image, factor: float) -> Image:
    return blend(image, 0.0, factor)


def contrast(image: Image, factor: float) -> Image:
    return blend(image, float(grey(image).astype(np.float64).mean()), factor)


def saturation(image: Image, factor: float) -> Image:
    return image if len(image) != 3 else blend(image, grey(image)[None], factor)


def hue(image: Image, turn: float) -> Image:
    out = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            h, s, v = colorsys.rgb_to_hsv(*(image[:, y, x] / 255).tolist())
            out[:, y, x] = [int(c * 255.999) for c in colorsys.hsv_to_rgb((h + turn) % 1, s, v)]
    return out


def sharpness(image: Image, factor: float) -> Image:
    if min(image.shape[1:]) <= 2:
        return image
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5.0
    kernel = (kernel / kernel.sum()).expand(len(image), 1, 3, 3)
    source = torch.from_numpy(image)[None].float()
    smooth = source.clone()
    smooth[..., 1:-1, 1:-1] = functional.conv2d(source, kernel, groups=len(image)).round()
    return blend(image, smooth[0], factor)


def posterize(image: Image, bits: float) -> Image:
    kept: Image = image & np.uint8(256 - 2 ** (8 - int(bits)))
    return kept


def solarize(image: Image, threshold: float) -> Image:
    return np.where(image >= threshold, 255 - image, image).astype(np.uint8)


def autocontrast(image: Image, _: float) -> Image:
    out = image.copy()
    for channel, found in zip(image, out, strict=True):
        low, high = float(channel.min()), float(channel.max())
        if low < high:
            scale = torch.tensor(255.0) / (high - low)
            values = (torch.from_numpy(channel).float() - low) * scale
            found[:] = values.clamp(0, 255).to(torch.uint8).numpy()
    return out


def equalize(image: Image, _: float) -> Image:
    out = image.copy()
    for channel, found in zip(image, out, strict=True):
        counts = torch.bincount(torch.from_numpy(channel).reshape(-1).long(), minlength=256)
        step = int(counts[counts != 0][:-1].sum()) // 255
        if step == 0:
            continue
        table = (counts.cumsum(0) + step // 2) // step
        table = functional.pad(table, [1, 0])[:-1].clamp(0, 255)
        found[:] = table[torch.from_numpy(channel).long()].to(torch.uint8).numpy()
    return out


def randaugment_operation(image: Image, name: str, magnitude: int, *, negative: bool) -> Image:
    """`_augmentation_space` with 31 bins, and `_apply_op`."""
    height, width = image.shape[1:]
    space: dict[str, tuple[list[float], bool]] = {
        "identity": ([0.0] * 31, False),
        "shear-x": (torch.linspace(0.0, 0.3, 31).tolist(), True),
        "shear-y": (torch.linspace(0.0, 0.3, 31).tolist(), True),
        "translate-x": (torch.linspace(0.0, 150.0 / 331.0 * width, 31).tolist(), True),
        "translate-y": (torch.linspace(0.0, 150.0 / 331.0 * height, 31).tolist(), True),
        "rotate": (torch.linspace(0.0, 30.0, 31).tolist(), True),
        **{
            each: (torch.linspace(0.0, 0.9, 31).tolist(), True)
            for each in ("brightness", "color", "contrast", "sharpness")
        },
        "posterize": ((8 - (torch.arange(31) / (30 / 4)).round().int()).tolist(), False),
        "solarize": (torch.linspace(255.0, 0.0, 31).tolist(), False),
        "autocontrast": ([0.0] * 31, False),
        "equalize": ([0.0] * 31, False),
    }
    values, signed = space[name]
    value = -values[magnitude] if signed and negative else values[magnitude]
    corner = (-width * 0.5, -height * 0.5)
    degrees = math.degrees(math.atan(value))
    if name == "identity":
        return image
    if name == "shear-x":
        return affine(image, shear=(degrees, 0.0), center=corner)
    if name == "shear-y":
        return affine(image, shear=(0.0, degrees), center=corner)
    if name == "translate-x":
        return affine(image, translate=(int(value), 0))
    if name == "translate-y":
        return affine(image, translate=(0, int(value)))
    if name == "rotate":
        return affine(image, angle=-value)
    factors = {"brightness": brightness, "color": saturation, "contrast": contrast}
    if name in factors:
        return factors[name](image, 1.0 + value)
    if name == "sharpness":
        return sharpness(image, 1.0 + value)
    plain = {"posterize": posterize, "solarize": solarize, "autocontrast": autocontrast}
    return (plain | {"equalize": equalize})[name](image, value)
