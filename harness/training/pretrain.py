"""Making the embedded backbone: train `vit_pico` on the SYNTHETIC source domain from scratch.

The shipped weights are this module's output; the file's metadata says how they were made. Owns:
this training. Must not know: trials, methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer

from harness.data.dataset import Dataset, Images, epoch_batches, normalised
from harness.datasets.synth_rs import source_domain
from harness.datasets.synth_rs_render import SOURCE_CLASSES
from harness.model.backbones import PICO
from harness.spec import Recipe

TRAIN_PER_CLASS = 1200
TEST_PER_CLASS = 100
EPOCHS = 36
BATCH = 128
PEAK_LR = 2e-3
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls as a cosine to zero."""
THREADS = 2


def pretrain_pico(path: Path, *, seed: int, log: Callable[[str], None]) -> float:
    """Train, save the weights without the classifier, and return the source test accuracy."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    num_classes = len(SOURCE_CLASSES)
    model = VisionTransformer(**{**PICO, "num_classes": num_classes})
    test = source_domain(TEST_PER_CLASS, seed)
    data = Dataset(train=test, test=test, classes=SOURCE_CLASSES, groups={})
    recipe = Recipe(batch_size=BATCH, augment="none")  # only its batches are used
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.05)
    steps = EPOCHS * math.ceil(TRAIN_PER_CLASS * num_classes / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
    accuracy = 0.0
    for epoch in range(EPOCHS):
        model.train()
        # Drawing is cheap, so every epoch sees new images and none can be memorised.
        train = source_domain(TRAIN_PER_CLASS, seed + 1 + epoch)
        for batch in epoch_batches(train, recipe, seed, epoch):
            loss = torch.nn.functional.cross_entropy(
                model(normalised(batch.pixels, data)), batch.labels, label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        accuracy = _accuracy(model.eval(), data, test)
        log(f"epoch {epoch + 1}/{EPOCHS}: accuracy on unseen source images {100 * accuracy:.1f} %")
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if k[:5] != "head."}
    metadata = {
        "made_by": f"harness pretrain --seed {seed}",
        "seed": str(seed),
        "source_test_accuracy": f"{accuracy:.4f}",
        "data": "SYNTHETIC synth-rs source domain",
    }
    safetensors.torch.save_file(weights, path, metadata=metadata)
    return accuracy


def _rate(done: float) -> float:
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


@torch.inference_mode()
def _accuracy(model: VisionTransformer, data: Dataset, images: Images) -> float:
    guesses = [model(normalised(p, data)).argmax(dim=1) for p in images.pixels.split(500)]
    return float((torch.cat(guesses) == images.labels).float().mean())
