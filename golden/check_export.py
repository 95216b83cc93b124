"""Does an exported safetensors file open in PyTorch, and does it give the same logits there?

    python golden/check_export.py FILE ARCH LOGITS

FILE holds weights under torchvision's names (resnet18, resnet50, ...) or RepDistiller's (cifar_resnet8, cifar_resnet20,
cifar_resnet8x4, wrn_16_2); ARCH is one of these. LOGITS is JSON: {"input": {"shape": [..], "data": [..]},
"logits": {"shape": [..], "data": [..]}, "tolerance": 1e-4}. Without "data" the input is the generated one of README.md;
the tolerance is relative to the largest logit. Loads with strict=True and compares in evaluation mode.
Exit status: 0 equal, 1 different, 2 the file or the JSON cannot be used.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch

from models import build
from weights import images


def tensor(document):
    return torch.tensor(document["data"], dtype=torch.float64).reshape(document["shape"])


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    file, arch, expected = sys.argv[1:]
    try:
        state = safetensors.torch.load_file(file)
        expected = json.loads(Path(expected).read_text())
        model = build(arch, classes=len(state["fc.weight"]))
        model.load_state_dict(state, strict=True)
        image = tensor(expected["input"]) if "data" in expected["input"] else images(tuple(expected["input"]["shape"]))
        logits = tensor(expected["logits"])
    except Exception as error:
        print(f"{file} as {arch}: {error}", file=sys.stderr)
        return 2
    with torch.no_grad():
        ours, _ = model.double().eval()(image.double())
    if ours.shape != logits.shape:
        print(f"{file} as {arch}: logits have shape {list(ours.shape)}, expected {list(logits.shape)}", file=sys.stderr)
        return 1
    difference = float((ours - logits).abs().max() / ours.abs().max())
    tolerance = expected.get("tolerance", 1e-4)
    print(f"{file} as {arch}: logits differ by {difference:.2e} of the largest (tolerance {tolerance:g})")
    return 0 if difference <= tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
