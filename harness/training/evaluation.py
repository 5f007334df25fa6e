"""Scores, features and FLOPs of a classifier.

Owns: the evaluation pass. Must not know: training, records.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize
from torch.utils.flop_counter import FlopCounterMode

from harness.data.dataset import Dataset, ImageSet, normalised
from harness.insertion.attachment import Attachment
from harness.metrics import SplitMetrics, split_metrics
from harness.model.backbones import features
from harness.model.blocks import Backbone
from harness.training.arithmetic import Precision, evaluating
from harness.training.classifier import Classifier
from harness.training.distributed import ALONE, DistributedContext
from harness.training.prefix import Prefixes, begun

EVAL_BATCH = {"cpu": 128}
"""Fixed, because another batch size could round differently. A CPU's caches hold what one layer
makes of so many images; on other devices it is `EVAL_BATCH_ELSEWHERE`."""
EVAL_BATCH_ELSEWHERE = 500


def eval_batch(device: torch.device) -> int:
    """Images that are scored at a time."""
    return EVAL_BATCH.get(device.type, EVAL_BATCH_ELSEWHERE)


@torch.inference_mode()
def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    images: ImageSet,
    precision: Precision = "fp32",
    distributed: DistributedContext = ALONE,
    prefixes: Prefixes | None = None,
    part: str = "",
) -> SplitMetrics | None:
    """Score a split, without logit adjustment; `part` is what `prefixes` know it as.

    None where the loss or a feature is not finite: then training has diverged, and there is
    nothing to score.
    """
    own = _features(classifier, dataset, images, precision, distributed, prefixes, part)
    feats = distributed.gather(own, len(_batches(images)))
    scores = torch.cat([classifier.head(batch) for batch in feats])
    loss = float(cross_entropy(scores, images.labels))
    seen = torch.cat(feats).double().cpu().numpy()
    if not (math.isfinite(loss) and np.isfinite(seen).all()):
        return None
    return split_metrics(
        predictions=scores.argmax(dim=1).cpu().numpy(),
        labels=images.labels.cpu().numpy(),
        features=seen,
        loss=loss,
        groups=dataset.groups,
        num_classes=len(dataset.classes),
    )


@torch.inference_mode()
def embed(
    classifier: Classifier,
    dataset: Dataset,
    images: ImageSet,
    precision: Precision = "fp32",
    prefixes: Prefixes | None = None,
    part: str = "",
) -> Tensor:
    """Features of images `[n, d]`, as the head sees them; `part` as in `evaluate`."""
    return torch.cat(_features(classifier, dataset, images, precision, ALONE, prefixes, part))


def passes_over(images: ImageSet) -> int:
    """How many passes scoring a split takes."""
    return len(_batches(images))


def _batches(images: ImageSet) -> Sequence[ImageSet]:
    return images.parts(eval_batch(images.labels.device))


def _features(
    classifier: Classifier,
    dataset: Dataset,
    images: ImageSet,
    precision: Precision,
    distributed: DistributedContext,
    prefixes: Prefixes | None,
    part: str,
) -> list[Tensor]:
    """Features `[n, d]` of this process's batches."""
    classifier.eval()
    batches = distributed.shard(_batches(images))

    def pixels(first: int) -> Iterator[Tensor]:
        return (normalised(batch.plain(), dataset) for batch in batches[first:])

    passing = begun(prefixes, part, len(batches), pixels, classifier.advance)
    with evaluating(precision, images.labels.device):
        return [classifier.features(*each) for each in passing]


@torch.inference_mode()
def class_means(backbone: Backbone, dataset: Dataset, images: ImageSet) -> Tensor:
    """Unit-length class means of frozen features `[classes, d]`, the head's starting weights.

    In fp32, whatever trials train and evaluate in, because those of a worker share them.

    Of images as they are tested. The released code resizes to the input size itself for this; one
    view for both lets a pack hold one size.
    """
    batches = _batches(images)
    feats = torch.cat([features(backbone, normalised(p.plain(), dataset)) for p in batches])
    sums = torch.zeros(len(dataset.classes), feats.shape[1], device=feats.device)
    return normalize(sums.index_add_(0, images.labels, feats), dim=1)


class Flops(NamedTuple):
    """What a forward pass computes, and what the backward pass that training adds does."""

    forward: int
    backward: int
    """For each image of the pass."""
    forward_once: int = 0
    backward_once: int = 0
    """For the pass, however many images it has: products of weights alone."""

    def of(self, images: int, passes: int) -> int:
        """Of forward passes with so many images in all."""
        return self.forward * images + self.forward_once * passes

    def of_backward(self, images: int, passes: int) -> int:
        """Of backward passes with so many images in all."""
        return self.backward * images + self.backward_once * passes


NO_FLOPS = Flops(0, 0)


def flops_of(classifier: Classifier, image: Tensor) -> Flops:
    """FLOPs by image `[1, 3, h, w]` and by pass, told apart where passes have some of their own."""
    one = flops_per_image(classifier, image)
    parts = classifier.attachment.modules()
    if not any(isinstance(part, Attachment) and part.computes_on_weights for part in parts):
        return Flops(*one)
    two = flops_per_image(classifier, image.repeat(2, 1, 1, 1))
    forward, backward = (more - less for more, less in zip(two, one, strict=True))
    return Flops(forward, backward, one[0] - forward, one[1] - backward)


def flops_per_image(classifier: Classifier, image: Tensor) -> tuple[int, int]:
    """FLOPs of one image `[1, 3, h, w]`: forward alone, and the backward pass that training adds.

    Counted on the operations that run (matrix products, 2 per multiply-add), so the backward pass
    reaches only as low as the lowest adapted site. Attention is counted unfused: torch has no
    formula for the fused backward on every device. Of several images at once, `[n, 3, h, w]`, it is
    the sum.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = classifier(image)
        forward = counter.get_total_flops()
        logits.sum().backward()
    for parameter in classifier.parameters():
        parameter.grad = None
    return forward, counter.get_total_flops() - forward
