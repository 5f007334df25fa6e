"""Scores, features and FLOPs of a classifier.

Owns: the evaluation pass. Must not know: training, records.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize
from torch.utils.flop_counter import FlopCounterMode

from harness.data.dataset import Dataset, ImageSet, normalised
from harness.metrics import SplitMetrics, split_metrics
from harness.model.backbones import features
from harness.model.blocks import Backbone
from harness.training.arithmetic import Precision, evaluating
from harness.training.classifier import Classifier
from harness.training.distributed import ALONE, DistributedContext

EVAL_BATCH = 500
"""Fixed, because another batch size could round differently."""


@torch.inference_mode()
def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    images: ImageSet,
    precision: Precision = "fp32",
    distributed: DistributedContext = ALONE,
) -> SplitMetrics:
    """Score a split, without logit adjustment."""
    batches = images.parts(EVAL_BATCH)
    with evaluating(precision, images.labels.device):
        own = [
            classifier.features(normalised(p.plain(), dataset)) for p in distributed.shard(batches)
        ]
    feats = distributed.gather(own, len(batches))
    scores = torch.cat([classifier.head(batch) for batch in feats])
    return split_metrics(
        predictions=scores.argmax(dim=1).cpu().numpy(),
        labels=images.labels.cpu().numpy(),
        features=torch.cat(feats).double().cpu().numpy(),
        loss=float(cross_entropy(scores, images.labels)),
        groups=dataset.groups,
        num_classes=len(dataset.classes),
    )


@torch.inference_mode()
def embed(
    classifier: Classifier, dataset: Dataset, images: ImageSet, precision: Precision = "fp32"
) -> Tensor:
    """Features of images `[n, d]`, as the head sees them."""
    batches = images.parts(EVAL_BATCH)
    with evaluating(precision, images.labels.device):
        return torch.cat([classifier.features(normalised(p.plain(), dataset)) for p in batches])


@torch.inference_mode()
def class_means(backbone: Backbone, dataset: Dataset, images: ImageSet) -> Tensor:
    """Unit-length class means of frozen features `[classes, d]`, the head's starting weights.

    In fp32, whatever trials train and evaluate in, because those of a worker share them.

    Of images as they are tested. The released code resizes to the input size itself for this; one
    view for both lets a pack hold one size.
    """
    batches = images.parts(EVAL_BATCH)
    feats = torch.cat([features(backbone, normalised(p.plain(), dataset)) for p in batches])
    sums = torch.zeros(len(dataset.classes), feats.shape[1], device=feats.device)
    return normalize(sums.index_add_(0, images.labels, feats), dim=1)


def flops_per_image(classifier: Classifier, image: Tensor) -> tuple[int, int]:
    """FLOPs of one image `[1, 3, h, w]`: forward alone, and the backward pass that training adds.

    Counted on the operations that run (matrix products, 2 per multiply-add), so the backward pass
    reaches only as low as the lowest adapted site. Attention is counted unfused: torch has no
    formula for the fused backward on every device.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = classifier(image)
        forward = counter.get_total_flops()
        logits.sum().backward()
    for parameter in classifier.parameters():
        parameter.grad = None
    return forward, counter.get_total_flops() - forward
