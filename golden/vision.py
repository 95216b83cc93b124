"""Writes `vision/*`: logits, features, running statistics and gradients of the ResNet families. See README.md.

python golden/vision.py [--reference-dir DIR] [--only resnet18,wrn_16_2]
"""

import argparse
import json
import math
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision

from authors import COMMITS, Authors, Missing
from models import build
from random_numbers import bits
from weights import fill, images

SMALL, IMAGENET, ODD = (2, 3, 32, 32), (2, 3, 64, 64), (2, 3, 97, 75)
TORCHVISION = ("resnet18", "resnet50", "resnet101")
ARCHITECTURES = {
    "resnet18": [IMAGENET, ODD],
    "resnet50": [IMAGENET],
    "resnet101": [IMAGENET],
    "cifar_resnet8": [SMALL],
    "cifar_resnet20": [SMALL],
    "cifar_resnet8x4": [SMALL],
    "wrn_16_2": [SMALL],
}
WITH_GRADIENT = ("resnet18", "cifar_resnet8", "wrn_16_2")
CLASSES, TARGETS = 100, [3, 7]


def rounded(values):
    return [float(f"{v:.10g}") for v in values.reshape(-1).tolist()]


def whole(tensor):
    return {"shape": list(tensor.shape), "data": rounded(tensor.detach())}


def sampled(name, tensor):
    """Shape, sums, and 32 elements at pseudo-random positions of the flattened tensor."""
    flat = tensor.detach().reshape(-1)
    positions = sorted({int(p) % len(flat) for p in bits(f"positions/{name}", 32)})
    return {
        "shape": list(tensor.shape),
        "sum": rounded(flat.sum())[0],
        "mean_abs": rounded(flat.abs().mean())[0],
        "positions": positions,
        "values": rounded(flat[positions]),
    }


def pass_through(arch, shape, training, dtype, classes=CLASSES, prefix=""):
    """One forward pass (and the gradient of the mean cross-entropy): (logits, features, model)."""
    model = fill(build(arch, classes), prefix).to(dtype).train(training)
    logits, features = model(images(shape).to(dtype))
    F.cross_entropy(logits, torch.tensor(TARGETS)).backward()
    return logits.detach(), {name: f.detach() for name, f in features.items()}, model


def apart(ours, other):
    """Largest difference relative to the largest magnitude."""
    return float(f"{((ours - other.double()).abs().max() / ours.abs().max()).item():.1e}")


def batch_norms(arch):
    if arch == "wrn_16_2":
        return ["block1.layer.0.bn1", "block2.layer.1.bn2", "bn1"]
    last = "layer4.1.bn2" if arch == "resnet18" else "layer4.2.bn3"
    return ["bn1", "layer2.0.downsample.1", "layer3.0.bn2" if "cifar" in arch else last]


def gradient_names(arch):
    middle = "block2.layer.0.convShortcut.weight" if arch == "wrn_16_2" else "layer2.0.downsample.0.weight"
    return ["conv1.weight", middle, "bn1.weight", "fc.bias"]


def measure(arch, shape, training):
    logits, features, model = pass_through(arch, shape, training, torch.float64)
    low_logits, low_features, low_model = pass_through(arch, shape, training, torch.float32)
    single = {"logits": apart(logits, low_logits)}
    single["features"] = max(apart(features[name], low_features[name]) for name in features)
    found = {"logits": whole(logits), "features": {name: sampled(name, f) for name, f in features.items()}}
    if training:
        state = model.state_dict()
        running = [f"{name}.{kind}" for name in batch_norms(arch) for kind in ("running_mean", "running_var")]
        found["after"] = {name: sampled(name, state[name]) for name in running}
        single["running"] = max(apart(state[name], low_model.state_dict()[name]) for name in running)
    if arch in WITH_GRADIENT:
        both = [dict(getattr(m, "network", m).named_parameters()) for m in (model, low_model)]
        found["gradient"] = {"targets": TARGETS, "loss": F.cross_entropy(logits, torch.tensor(TARGETS)).item()}
        for name in gradient_names(arch):
            found["gradient"][name] = sampled(name, both[0][name].grad)
        single["gradient"] = max(apart(both[0][name].grad, both[1][name].grad) for name in gradient_names(arch))
    found["float32_off_by"] = single
    return found


def theirs(authors, arch):
    """RepDistiller's network of the same name, with the same weights (torchvision's networks are their own source)."""
    if arch == "wrn_16_2":
        names = ["BasicBlock", "NetworkBlock", "WideResNet"]
        network = authors.load("RepDistiller", "models/wrn.py", *names)["WideResNet"]
        return fill(network(depth=16, widen_factor=2, num_classes=CLASSES)).double()
    names = ["conv3x3", "BasicBlock", "Bottleneck", "ResNet"]
    network = authors.load("RepDistiller", "models/resnet.py", *names)["ResNet"]
    depth, widths = (20, [16, 16, 32, 64]) if arch.endswith("20") else (8, [16, 16, 32, 64])
    widths = [32, 64, 128, 256] if arch.endswith("8x4") else widths
    return fill(network(depth, widths, "basicblock", num_classes=CLASSES)).double()


def compare(authors, arch):
    """Sets our definition against RepDistiller's in both modes; returns what to say about it."""
    stages = ["block1", "block2", "block3"] if arch == "wrn_16_2" else ["layer1", "layer2", "layer3"]
    worst = 0.0
    for training in (False, True):
        logits, features, model = pass_through(arch, SMALL, training, torch.float64)
        for preact in (False, True):
            other = theirs(authors, arch).train(training)
            found, other_logits = other(images(SMALL).double(), is_feat=True, preact=preact)
            names = ["stem", *(f"{s}_preact" if preact else s for s in stages), "pooled"]
            pairs = [(logits, other_logits), *((features[n], f) for n, f in zip(names, found, strict=True))]
            worst = max(worst, *(apart(a, b.detach()) for a, b in pairs))
            state, other_state = model.state_dict(), other.state_dict()
            assert list(state) == list(other_state), "parameter names or their order differ"
            if preact is False:  # with preact=True their wide ResNet runs three batch norms twice
                worst = max(worst, *(apart(state[n], other_state[n]) for n in state if "running" in n))
    assert worst < 1e-9, f"{arch}: {worst:.1e} apart from RepDistiller"
    bound = 10.0 ** max(-13, math.ceil(math.log10(worst)))
    agreed = f"logits, features, running statistics within {bound:.0e}, same parameter names"
    return f"RepDistiller@{COMMITS['RepDistiller'][:12]}: {agreed}"


def write(path, document):
    """One line a case and mode."""
    head = {key: value for key, value in document.items() if key != "cases"}
    lines = []
    for case in document["cases"]:
        modes = ",\n".join(
            f"{json.dumps(mode)}:" + json.dumps(case[mode], separators=(",", ":")) for mode in ("eval", "train")
        )
        lines.append('{"input":' + json.dumps(case["input"]) + ",\n" + modes + "}")
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + ",\n".join(lines) + "\n]}\n")


def write_files(out):
    """A small network as `torch.save` and safetensors write it, and the logits of its evaluation mode."""
    arch, classes, prefix = "cifar_resnet8", 10, "file/"
    model = fill(build(arch, classes), prefix)
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(7)
    torch.save(model.state_dict(), out / f"{arch}.pth")
    safetensors.torch.save_file(model.state_dict(), out / f"{arch}.safetensors")
    logits, _, _ = pass_through(arch, SMALL, False, torch.float64, classes, prefix)
    document = {
        "arch": arch,
        "classes": classes,
        "reference": f"PyTorch {version()} in float64",
        "files": [f"{arch}.pth", f"{arch}.safetensors"],
        "input": {"shape": list(SMALL)},
        "logits": whole(logits),
    }
    (out / f"{arch}_files.json").write_text(json.dumps(document, indent=1) + "\n")


def version():
    return torch.__version__.split("+")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-dir", help="folder with checkouts of the authors' code (README.md lists them)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "vision")
    parser.add_argument(
        "--only", default=",".join([*ARCHITECTURES, "files"]), help="comma-separated networks, or files"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    authors = Authors(arguments.reference_dir)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for arch in arguments.only.split(","):
        if arch == "files":
            write_files(arguments.out)
            continue
        reference = f"PyTorch {version()} in float64"
        if arch in TORCHVISION:
            reference += f"; torchvision {torchvision.__version__.split('+')[0]}"
        else:
            try:
                reference += "; " + compare(authors, arch)
            except Missing:
                pass
        parameters = [{"name": n, "shape": list(t.shape)} for n, t in build(arch, CLASSES).state_dict().items()]
        document = {"arch": arch, "classes": CLASSES, "reference": reference, "state_dict": parameters, "cases": []}
        for shape in ARCHITECTURES[arch]:
            case = {
                "input": {"shape": list(shape)},
                "eval": measure(arch, shape, False),
                "train": measure(arch, shape, True),
            }
            document["cases"].append(case)
            single = [case[mode]["float32_off_by"] for mode in ("eval", "train")]
            print(f"  {arch} {shape}: float32 off by {single}", flush=True)
        write(arguments.out / f"{arch}.json", document)
        print(f"{arch}: {reference}", flush=True)


if __name__ == "__main__":
    main()
