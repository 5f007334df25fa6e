"""README.md of an exported folder: what it holds, and code that loads it and classifies an image.

The code runs in the folder, and takes an image as its argument. Owns: these words. Must not know:
how tensors are written.
"""

from __future__ import annotations

from harness.catalogue.registered import is_known_anywhere
from harness.export.about import About
from harness.model.backbones import EMBEDDED

VIEW = '''\
def view(path):
    """Resize and CenterCrop, as the test images were seen: [1, c, h, w]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    image = center_crop(resize(pil_to_tensor(image), {resize}, antialias=True), {size})
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ({mean}, {std}))
    return ((image / 255 - mean) / std)[None]
'''
IMPORTS = """\
import sys
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch.nn.functional import normalize
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize
"""
STUDY = """\
from harness.catalogue.studies import load_study

load_study("FILE")  # the study file that registers what the trial is of
"""
SHOWN = """\
for share, name in sorted(zip(logits.softmax(1)[0].tolist(), classes), reverse=True)[:3]:
    print(f"{share:.3f}  {name}")
"""


def of_weights(known: About) -> str:
    """Of the trained tensors alone."""
    code = f"""\
import sys
from pathlib import Path

from harness.export.predict import load_export, predictions

{_file(known)}exported = load_export(Path("."){_argument(known)})
for found in predictions(exported, Path(sys.argv[1])):  # an image, or a folder of them
    print(f"{{found.probability:.3f}}  {{found.predicted}}  {{found.path}}")
"""
    holds = {
        "weights.safetensors": "the trained tensors: `attachment.*` of the method, `head.*`",
        "adapter.json": "the trial, its classes, normalisation and head",
    }
    study = "" if is_known_anywhere(known.spec) else " --study FILE"
    more = f"`harness predict . IMAGES{study}` writes a CSV of the same.\n"
    return _text(known, "Trained classifier", holds, code) + "\n" + more


def of_peft(known: About) -> str:
    """Of a peft adapter."""
    head = known.head
    logits = (
        f"{head.scale:g} * normalize(found) @ normalize(head['weight']).T"
        if head.type == "cosine"
        else "found @ head['weight'].T + head['bias']"
    )
    code = f"""\
{IMPORTS}from peft import PeftModel
from safetensors.torch import load_file

from harness.export.about import read_about
from harness.model.backbones import features, load_backbone

{_view(known)}
{_file(known)}about = read_about(Path("."))
classes = about.classes
backbone = load_backbone(about.spec.backbone, torch.device("cpu"){_argument(known)})
model = PeftModel.from_pretrained(backbone, ".").base_model.model
head = load_file("head.safetensors")
with torch.no_grad():
    found = features(model, view(sys.argv[1]))
    logits = {logits}
{SHOWN}"""
    holds = {
        "adapter_config.json, adapter_model.safetensors": "the adapter, as peft reads it",
        "head.safetensors": _head_words(known),
        "adapter.json": "the trial, its classes, normalisation and head",
    }
    return _text(known, "Adapter for Hugging Face peft", holds, code)


def of_merged(known: About) -> str:
    """Of a checkpoint with the trained modules in its weights."""
    name = known.spec.backbone.name
    if name in EMBEDDED:
        imports = """\
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from harness.model.backbones import EMBEDDED
"""
        model = f"""\
model = VisionTransformer(**{{**EMBEDDED["{name}"], "img_size": {known.normalisation.size}, \
"in_chans": {len(known.normalisation.mean)}, "num_classes": {len(known.classes)}}})
model.load_state_dict(load_file("model.safetensors"))
"""
    else:
        imports, model = (
            "import timm\n",
            'model = timm.create_model("local-dir:.", pretrained=True)\n',
        )
    cosine = known.head.type == "cosine"
    unit = "normalize(features)" if cosine else "features"
    code = f"""\
import json
{IMPORTS}{imports}
{_view(known)}
classes = json.loads(Path("config.json").read_text())["pretrained_cfg"]["label_names"]
{model}model.eval()
with torch.no_grad():
    features = model.forward_head(model.forward_features(view(sys.argv[1])), pre_logits=True)
    logits = model.get_classifier()({unit})
{SHOWN}"""
    words = "the backbone under timm's names with the trained modules merged into it, and its head"
    holds = {
        "model.safetensors": words,
        "config.json": "the architecture, classes, normalisation and the trial",
    }
    text = _text(known, f"{name}, fine-tuned", holds, code)
    if cosine:
        text += (
            "\nThe head is a cosine's: it takes features of unit length, as in the code above. "
            "`model(x)` leaves that out, which gives the same class and other probabilities.\n"
        )
    return text


def _text(known: About, title: str, holds: dict[str, str], code: str) -> str:
    spec, view = known.spec, known.normalisation
    files = "\n".join(f"- `{name}`: {what}" for name, what in holds.items())
    bands = "" if view.bands is None else f", bands {', '.join(map(str, view.bands))}"
    scaled = (
        ""
        if view.bands is None
        else "\nImages are read and scaled to 8 bits as `normalisation` in the JSON says, which "
        "`harness predict` does; the code below is for RGB images.\n"
    )
    return f"""\
# {title}

Trial {known.trial_id}: {spec.method} on {spec.backbone.name}, trained on {spec.data.name}, seed \
{spec.seed}.
Test accuracy: {known.shown}.

{files}

Classes, in the order of the logits: {", ".join(known.classes)}.

Input: {view.size} x {view.size} pixels{bands}: the short side is reduced to {view.resize}, the \
centre is cut out, and pixels in [0, 1] are normalised with mean {_numbers(view.mean)} and \
standard deviation {_numbers(view.std)}. Head: {_head_words(known)}.
{scaled}
Run in this folder, with an image as the argument:

```python
{code}```
"""


def _head_words(known: About) -> str:
    if known.head.type == "cosine":
        return f"cosine, {known.head.scale:g} times the cosine of feature and class weight"
    return "linear, with a bias"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _view(known: About) -> str:
    view = known.normalisation
    return "\n" + VIEW.format(
        resize=view.resize, size=view.size, mean=list(view.mean), std=list(view.std)
    )


def _file(known: About) -> str:
    """Lines that name the study file that registers the trial's names, and the backbone's weights,
    where these are in files of the user's."""
    study = "" if is_known_anywhere(known.spec) else STUDY
    is_of_file = known.spec.backbone.weights == "file"
    return study + ('weights = Path("FILE")  # as given to --weights\n' if is_of_file else "")


def _argument(known: About) -> str:
    return ", weights" if known.spec.backbone.weights == "file" else ""
