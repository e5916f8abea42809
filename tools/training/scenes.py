"""Generates scenes with known masks, on which `sam_edge_tiny` is trained and evaluated.

The background of a scene is a crop of a photograph or a procedural texture. Three to eight objects are pasted
over it: textured shapes and, where the assets have them, cut-outs of things. The label map holds the
*visible* part of each object, so occlusion is part of the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sam_edge.models.photos import HERE as PHOTOS_FOLDER

Rng = np.random.Generator
UInt8 = NDArray[np.uint8]

MIN_AREA = 0.004
MIN_VISIBLE = 0.35


@dataclass(frozen=True)
class Assets:
    """The images that scenes are made of.

    Attributes:
        photos: (P, S, S, 3) uint8 RGB crops for backgrounds and textures; P may be 0.
        cutouts: (C, D, D, 4) uint8 RGBA images of single things; C may be 0.
    """

    photos: UInt8
    cutouts: UInt8


@dataclass(frozen=True)
class Scene:
    """An image, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8: 0 for background, then one per object."""

    image: UInt8
    labels: UInt8

    def masks(self) -> list[NDArray[np.bool_]]:
        """The visible mask, (H, W) bool, of every object."""
        return [self.labels == i for i in range(1, int(self.labels.max()) + 1) if (self.labels == i).any()]


def load_assets(path: Path, held_out: bool) -> Assets:
    """Read the arrays written by `prepare_assets.py`; every eighth item is held out of training."""
    photos = np.load(path / "photos.npy", mmap_mode="r")
    sources = np.load(path / "photo_sources.npy")
    cutouts = np.load(path / "cutouts.npy", mmap_mode="r")
    photo_kept = (sources % 8 == 0) == held_out
    cutout_kept = (np.arange(len(cutouts)) % 8 == 0) == held_out
    return Assets(np.asarray(photos)[photo_kept], np.asarray(cutouts)[cutout_kept])


def packaged_assets() -> Assets:
    """The photographs that the package contains, which training never uses; no cut-outs."""
    files = sorted(PHOTOS_FOLDER.glob("*.jpg"))
    crops = []
    for file in files:
        with Image.open(file) as image:
            side = min(image.size)
            crops.append(np.asarray(image.convert("RGB").crop((0, 0, side, side)).resize((384, 384))))
    return Assets(np.stack(crops), np.zeros((0, 128, 128, 4), np.uint8))


def held_out_assets(path: Path | None) -> Assets:
    """What evaluation scenes are made of: the held-out arrays in `path`, or the packaged photographs."""
    return packaged_assets() if path is None else load_assets(path, held_out=True)


def _noise_texture(rng: Rng, size: int) -> UInt8:
    colours = rng.integers(0, 256, (2, 3)).astype(np.float32)
    blend = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        cells = int(rng.integers(2, size // 3))
        small = (rng.random((cells, cells)) * 255).astype(np.uint8)
        layer = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        blend += np.asarray(layer, np.float32) / 255
    blend = (blend - blend.min()) / max(float(np.ptp(blend)), 1e-6)
    return (colours[0] + (colours[1] - colours[0]) * blend[..., None]).astype(np.uint8)


def _pattern_texture(rng: Rng, size: int) -> UInt8:
    colours = rng.integers(0, 256, (2, 3)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    period = rng.uniform(5, 60)
    u = (x * math.cos(angle) + y * math.sin(angle)) / period
    v = (y * math.cos(angle) - x * math.sin(angle)) / period
    kind = rng.integers(4)
    if kind == 0:
        blend = (u % 1 < 0.5).astype(np.float32)
    elif kind == 1:
        blend = ((u % 1 < 0.5) ^ (v % 1 < 0.5)).astype(np.float32)
    elif kind == 2:
        blend = ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < rng.uniform(0.03, 0.15)).astype(np.float32)
    else:
        blend = 0.5 + 0.5 * np.sin(2 * math.pi * u)
    return (colours[0] + (colours[1] - colours[0]) * blend[..., None]).astype(np.uint8)


def _gradient_texture(rng: Rng, size: int) -> UInt8:
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    if rng.random() < 0.4:
        corners[:] = corners[0, 0]
    return np.asarray(Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR))


class SceneMaker:
    """Makes scenes from assets and a pool of procedural textures.

    The textures are drawn once, since drawing one costs more than pasting it.

    Attributes:
        diameters: the range of objects' sizes in a scene of 256 pixels.
        min_area: smaller objects are not labelled; as a share of the squared long side of the scene.
    """

    diameters = 26.0, 150.0
    min_area = MIN_AREA

    def __init__(self, assets: Assets, rng: Rng, pool: int = 160, texture_size: int = 320) -> None:
        self.assets = assets
        self.rng = rng
        makers = (_noise_texture, _pattern_texture, _gradient_texture)
        self.textures = [makers[i % 3](rng, texture_size) for i in range(pool)]

    def _crop(self, image: UInt8, width: int, height: int, max_zoom: float) -> UInt8:
        """A random crop, zoomed and flipped at random, resized to (height, width)."""
        rng = self.rng
        side = min(image.shape[:2])
        zoom = rng.uniform(1, max_zoom)
        scale = min(side / width, side / height, zoom)
        w, h = int(width * scale), int(height * scale)
        x = int(rng.integers(image.shape[1] - w + 1))
        y = int(rng.integers(image.shape[0] - h + 1))
        patch = image[y : y + h, x : x + w]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        resized = Image.fromarray(np.ascontiguousarray(patch)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        return np.asarray(resized)

    def _texture(self, width: int, height: int, photo: float) -> UInt8:
        rng = self.rng
        if len(self.assets.photos) and rng.random() < photo:
            image = self.assets.photos[rng.integers(len(self.assets.photos))]
        else:
            image = self.textures[rng.integers(len(self.textures))]
        return self._tint(self._crop(image, width, height, 1.5), 0.25)

    def _tint(self, image: UInt8, strength: float) -> UInt8:
        gain = self.rng.normal(1, strength * 0.6, 3) * self.rng.normal(1, strength)
        shift = self.rng.normal(0, 80 * strength) + self.rng.normal(0, 30 * strength, 3)
        table = np.arange(256)[:, None] * gain + shift
        table = np.clip(table, 0, 255).astype(np.uint8)
        out = np.empty_like(image)
        for channel in range(3):
            out[..., channel] = table[image[..., channel], channel]
        return out

    def _outline(self, radius: float) -> list[tuple[float, float]]:
        """Points around the origin: of an ellipse, polygon, star, rectangle or wavy blob."""
        rng = self.rng
        kind = rng.integers(5)
        aspect = rng.uniform(0.4, 1)
        turn = rng.uniform(0, 2 * math.pi)
        if kind == 0:
            angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
            radii = np.ones(48)
        elif kind == 1:
            corners = int(rng.integers(3, 9))
            angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
            angles = 0.5 * angles + 0.5 * np.linspace(0, 2 * math.pi, corners, endpoint=False)
            radii = rng.uniform(0.7, 1, corners)
        elif kind == 2:
            tips = int(rng.integers(4, 9))
            angles = np.linspace(0, 2 * math.pi, 2 * tips, endpoint=False)
            radii = np.tile([1.0, rng.uniform(0.4, 0.75)], tips)
        elif kind == 3:
            angles = np.array([0.25, 0.75, 1.25, 1.75]) * math.pi
            radii = np.ones(4)
        else:
            angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
            radii = np.ones(64)
            for wave in range(2, 6):
                radii += rng.normal(0, 0.35 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3))
            radii = np.clip(radii / radii.max(), 0.15, 1)
        x = radius * radii * np.cos(angles)
        y = radius * radii * np.sin(angles) * aspect
        xr = x * math.cos(turn) - y * math.sin(turn)
        yr = x * math.sin(turn) + y * math.cos(turn)
        return list(zip(xr.tolist(), yr.tolist(), strict=True))

    def _shape(self, diameter: int) -> tuple[UInt8, UInt8]:
        """A textured shape: RGB (D, D, 3) and alpha (D, D)."""
        rng = self.rng
        big = 2 * diameter
        alpha = Image.new("L", (big, big), 0)
        draw = ImageDraw.Draw(alpha)
        kind = rng.random()
        if kind < 0.1:
            draw.ellipse((1, 1, big - 2, big - 2), fill=255)
            inset = big * rng.uniform(0.15, 0.32)
            draw.ellipse((inset, inset, big - inset, big - inset), fill=0)
        elif kind < 0.18:
            width = int(big * rng.uniform(0.12, 0.25))
            points = [tuple(p) for p in rng.uniform(width, big - width, (3, 2)).tolist()]
            draw.line(points, fill=255, width=width, joint="curve")
        else:
            outline = self._outline(big / 2 - 1)
            draw.polygon([(x + big / 2, y + big / 2) for x, y in outline], fill=255)
        alpha = alpha.resize((diameter, diameter), Image.Resampling.BOX)
        colour = self._texture(diameter, diameter, 0.35).astype(np.float32)
        if rng.random() < 0.5:
            light = np.linspace(rng.uniform(0.5, 1), rng.uniform(1, 1.4), diameter, dtype=np.float32)
            light = light[:, None, None]
            colour = colour * (light if rng.random() < 0.5 else light.swapaxes(0, 1))
        return np.clip(colour, 0, 255).astype(np.uint8), np.asarray(alpha)

    def _cutout(self, diameter: int) -> tuple[UInt8, UInt8]:
        """A cut-out, scaled, rotated, flipped and tinted: RGB (H, W, 3) and alpha (H, W)."""
        rng = self.rng
        image = Image.fromarray(self.assets.cutouts[rng.integers(len(self.assets.cutouts))])
        width = max(8, int(diameter * rng.uniform(0.75, 1)))
        image = image.resize((width, diameter), Image.Resampling.BILINEAR, reducing_gap=2)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.6:
            angle = float(rng.normal(0, 30) if rng.random() < 0.7 else rng.uniform(0, 360))
            image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        rgba = np.asarray(image)
        return self._tint(rgba[..., :3], 0.15), rgba[..., 3]

    def _paste(self, canvas: UInt8, labels: UInt8, label: int) -> int:
        """Paste one object at a random place, and return its area before others cover it."""
        rng = self.rng
        height, width = labels.shape
        scale = max(height, width) / 256
        smallest, largest = self.diameters
        diameter = int(scale * math.exp(rng.uniform(math.log(smallest), math.log(largest))))
        use_cutout = len(self.assets.cutouts) > 0 and rng.random() < 0.6
        colour, alpha = self._cutout(diameter) if use_cutout else self._shape(diameter)
        h, w = alpha.shape
        top = int(rng.integers(-h // 4, height - (3 * h) // 4 + 1))
        left = int(rng.integers(-w // 4, width - (3 * w) // 4 + 1))
        y0, y1 = max(top, 0), min(top + h, height)
        x0, x1 = max(left, 0), min(left + w, width)
        if y1 <= y0 or x1 <= x0:
            return 0
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        weight = alpha[inside].astype(np.float32)[..., None] / 255
        region = canvas[y0:y1, x0:x1]
        if rng.random() < 0.35:
            shade = np.asarray(Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(3)))
            dark = shade[inside].astype(np.float32)[..., None] / 255 * rng.uniform(0.2, 0.6)
            shift = int(rng.integers(1, 5))
            region[shift:, shift:] = region[shift:, shift:] * (1 - dark[:-shift, :-shift])
        region[:] = region * (1 - weight) + colour[inside] * weight
        solid = alpha[inside] > 127
        labels[y0:y1, x0:x1][solid] = label
        return int(solid.sum())

    def make(self, size: int = 256) -> Scene:
        """Make a scene whose long side is `size`; half of them are not square."""
        rng = self.rng
        height = width = size
        if rng.random() < 0.5:
            short = int(size * rng.uniform(0.6, 1))
            height, width = (short, size) if rng.random() < 0.5 else (size, short)
        canvas = np.array(self._texture(width, height, 0.75))
        labels = np.zeros((height, width), np.uint8)
        areas = [self._paste(canvas, labels, i + 1) for i in range(int(rng.integers(3, 9)))]
        kept = np.zeros(len(areas) + 1, np.uint8)
        visible = np.bincount(labels.ravel(), minlength=len(areas) + 1)[1:]
        large = [
            i
            for i, (seen, area) in enumerate(zip(visible, areas, strict=True), 1)
            if seen >= self.min_area * size * size and seen >= MIN_VISIBLE * area
        ]
        if not large:
            return self.make(size)
        kept[large] = np.arange(1, len(large) + 1)
        return Scene(self._finish(canvas), kept[labels])

    def _finish(self, canvas: UInt8) -> UInt8:
        """Imitate a camera: slight blur, noise, exposure."""
        rng = self.rng
        if rng.random() < 0.3:
            blur = ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0)))
            canvas = np.asarray(Image.fromarray(canvas).filter(blur))
        if rng.random() < 0.4:
            noise = rng.standard_normal((canvas.shape[0], canvas.shape[1], 1), np.float32)
            noisy = canvas + noise * np.float32(rng.uniform(2, 12))
            canvas = np.clip(noisy, 0, 255).astype(np.uint8)
        return self._tint(canvas, 0.1) if rng.random() < 0.5 else canvas


def held_out_scenes(assets: Assets, count: int, seed: int) -> list[Scene]:
    """Make `count` scenes from a seed, the same on every machine with the same assets."""
    maker = SceneMaker(assets, np.random.default_rng(seed))
    return [maker.make() for _ in range(count)]
