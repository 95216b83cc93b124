"""Writes `connectors.json`: ReviewKD's fusion of student stages, a convolutional connector, and the paraphraser and
translator of factor transfer, in PyTorch.

    python golden/connectors.py [--reference-dir DIR]

The fusion is written from section 3.3 of the paper (arXiv 2104.09044): of each stage, from deep to shallow, a 1x1
convolution with norm, a pixel-wise weighing against what the deeper stages said, and a 3x3 convolution with norm to the
teacher's channels. With --reference-dir it is compared with the authors' `ABF` and `ReviewKD.forward` by value and
gradient. The loss behind the gradients is that of `losses/review_kd.py`. The end of a SimKD student (arXiv 2203.14001:
a projector and the teacher's classifier) is compared with the authors' `SimKD`; its loss is the mean squared difference
of the maps plus that of the logits from 0, so that gradients pass through the classifier too.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn as nn
import torch.nn.functional as F

from authors import COMMITS, Authors, Missing
from losses import difference, load
from random_numbers import bell


def array(data):
    """8 digits, which a float32 implementation cannot tell from more."""
    return {"shape": list(data.shape), "data": [float(f"{v:.8g}") for v in data.detach().reshape(-1).tolist()]}


def fill(module, prefix):
    """Every entry of the state dict from its name; multiples of 1/64, variances above 0."""
    state = module.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            values = torch.tensor(bell(f"connectors/{prefix}/{name}", tuple(tensor.shape), 0.5))
            state[name] = values.abs() + 0.5 if name.endswith("running_var") else values
    module.load_state_dict(state)
    return module.double()


class Fusion(nn.Module):
    """One stage. Names of the state dict as in the authors' code, so that both can hold the same weights."""

    def __init__(self, student, middle, teacher, fuse):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(student, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.conv2 = nn.Sequential(nn.Conv2d(middle, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher))
        self.att_conv = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuse else None

    def forward(self, student, deeper, size):
        mixed = self.conv1(student)
        if self.att_conv is not None:
            deeper = F.interpolate(deeper, mixed.shape[2:], mode="nearest")
            own, other = self.att_conv(torch.cat([mixed, deeper], 1)).unbind(1)
            mixed = torch.einsum("nchw,nhw->nchw", mixed, own) + torch.einsum("nchw,nhw->nchw", deeper, other)
        mixed = F.interpolate(mixed, size, mode="nearest")
        return self.conv2(mixed), mixed


class Review(nn.Module):
    """All stages, shallow first in arguments and result."""

    def __init__(self, student, middle, teacher):
        super().__init__()
        last = len(student) - 1
        self.stages = nn.ModuleList(
            Fusion(s, middle, t, index < last) for index, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, features, sizes):
        deeper, fused = None, {}
        for index in reversed(range(len(self.stages))):
            fused[index], deeper = self.stages[index](features[index], deeper, sizes[index])
        return [fused[index] for index in range(len(self.stages))]


def authors_review(authors, stages, training):
    """The authors' connector with our weights. Its stages lie deep to shallow and take side lengths."""
    code = authors.load("ReviewKD", "CIFAR-100/model/reviewkd.py", "ABF", "ReviewKD")

    def forward(features, sizes):
        abfs = nn.ModuleList()
        for stage in stages:
            channels = stage.conv1[0].in_channels, stage.conv1[0].out_channels, stage.conv2[0].out_channels
            abf = code["ABF"](*channels, stage.att_conv is not None).double()
            abf.load_state_dict(stage.state_dict())
            abfs.append(abf.train(training))
        whole = SimpleNamespace(
            student=lambda features, is_feat: (features, None),
            abfs=abfs[::-1],
            shapes=[feature.shape[2] for feature in features][::-1],
            out_shapes=[size[0] for size in sizes][::-1],
        )
        return code["ReviewKD"].forward(whole, features)[0]

    return forward


def review_case(name, student, middle, teacher, sides, sizes, training, authors, compared):
    module = fill(Review(student, middle, teacher), name).train(training)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    stages = len(student)
    features = [
        torch.tensor(bell(f"connectors/{name}/student_{i}", (3, student[i], *sides[i]), 1.0)).requires_grad_()
        for i in range(stages)
    ]
    hints = [
        torch.tensor(bell(f"connectors/{name}/teacher_{i}", (3, teacher[i], *sizes[i]), 1.0)) for i in range(stages)
    ]

    def loss(fused):
        pairs = {f"student_{i}": f for i, f in enumerate(fused)} | {f"teacher_{i}": h for i, h in enumerate(hints)}
        return load("review_kd").loss({}, pairs)[0]

    fused = module(features, sizes)
    after = {key: array(value) for key, value in module.state_dict().items() if "running" in key}
    value = loss(fused)
    weights = dict(module.named_parameters())
    slopes = torch.autograd.grad(value, [*features, *weights.values()])
    if all(side[0] == side[1] for side in [*sides, *sizes]):
        try:
            original = authors_review(authors, _with_state(module, before), training)
            theirs = original(features, sizes)
        except Missing:
            theirs = None
        if theirs is not None:
            apart = [difference(a, b) for a, b in zip(fused, theirs, strict=True)]
            own = torch.autograd.grad(loss(theirs), features)
            apart += [difference(a, b) for a, b in zip(slopes, own, strict=False)]
            assert max(apart) < 1e-12, f"{name}: {apart}"
            compared.append(name)
    return {
        "name": name,
        "training": training,
        "student_channels": student,
        "mid_channels": middle,
        "teacher_channels": teacher,
        "sizes": [list(size) for size in sizes],
        "weights": {key: array(value) for key, value in before.items() if not key.endswith("num_batches_tracked")},
        "student": [array(feature) for feature in features],
        "teacher": [array(hint) for hint in hints],
        "fused": [array(output) for output in fused],
        "loss": value.item(),
        "student_grad": [array(slope) for slope in slopes[:stages]],
        "weight_grad": {key: array(slope) for key, slope in zip(weights, slopes[stages:], strict=True)},
        "after": after,
    }


def _with_state(module, state):
    """The stages with the running statistics from before the pass."""
    module.load_state_dict(state)
    return module.stages


def conv_case(name, student, teacher, stride, training):
    module = nn.Sequential(nn.Conv2d(student, teacher, 1, stride=stride, bias=False), nn.BatchNorm2d(teacher))
    module = fill(module, name).train(training)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    feature = torch.tensor(bell(f"connectors/{name}/student", (2, student, 5, 4), 1.0)).requires_grad_()
    output = module(feature)
    hint = torch.tensor(bell(f"connectors/{name}/teacher", tuple(output.shape), 1.0))
    value = F.mse_loss(output, hint)
    weights = dict(module.named_parameters())
    slopes = torch.autograd.grad(value, [feature, *weights.values()])
    return {
        "name": name,
        "training": training,
        "student_channels": student,
        "teacher_channels": teacher,
        "stride": stride,
        "weights": {key: array(value) for key, value in before.items() if not key.endswith("num_batches_tracked")},
        "student": array(feature),
        "teacher": array(hint),
        "output": array(output),
        "loss": value.item(),
        "student_grad": array(slopes[0]),
        "weight_grad": {key: array(slope) for key, slope in zip(weights, slopes[1:], strict=True)},
    }


class Reused(nn.Module):
    """SimKD: the projector under the authors' names, and the teacher's classifier."""

    def __init__(self, student, teacher, factor, classes):
        super().__init__()
        middle = teacher // factor
        layers = []
        for inputs, outputs, kernel in [(student, middle, 1), (middle, middle, 3), (middle, teacher, 1)]:
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.transfer, self.classifier = nn.Sequential(*layers), nn.Linear(teacher, classes)

    def forward(self, student, size):
        smaller = [min(sides) for sides in zip(student.shape[2:], size, strict=True)]
        mapped = self.transfer(F.adaptive_avg_pool2d(student, smaller))
        return mapped, self.classifier(mapped.mean((2, 3)))


def reused_case(name, channels, factor, classes, side, size, training, authors, compared):
    student, teacher = channels
    module = fill(Reused(student, teacher, factor, classes), name).train(training)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    feature = torch.tensor(bell(f"connectors/{name}/student", (3, student, *side), 1.0)).requires_grad_()
    smaller = [min(sides) for sides in zip(side, size, strict=True)]
    hint = torch.tensor(bell(f"connectors/{name}/teacher", (3, teacher, *smaller), 1.0))

    def loss(mapped, logits):
        return F.mse_loss(mapped, hint) + logits.pow(2).mean()

    outputs = module(feature, size)
    value = loss(*outputs)
    weights = dict(module.transfer.named_parameters())
    slopes = torch.autograd.grad(value, [feature, *weights.values()])
    if side[0] == side[1] and size[0] == size[1]:
        try:
            theirs = authors.load("SimKD", "models/util.py", "SimKD")["SimKD"](s_n=student, t_n=teacher, factor=factor)
            theirs.transfer.load_state_dict({k[9:]: v for k, v in before.items() if k.startswith("transfer.")})
            theirs = theirs.double().train(training)
            mapped, _, logits = theirs(feature, torch.zeros(3, teacher, *size).double(), module.classifier)
            own = torch.autograd.grad(loss(mapped, logits), [feature, *theirs.transfer.parameters()])
            apart = [difference(a, b) for a, b in zip([*outputs, *slopes], [mapped, logits, *own], strict=True)]
            assert max(apart) < 1e-12, f"{name}: {apart}"
            compared.append(name)
        except Missing:
            pass
    return {
        "name": name,
        "training": training,
        "student_channels": student,
        "teacher_channels": teacher,
        "factor": factor,
        "size": list(size),
        "weights": {key: array(value) for key, value in before.items() if not key.endswith("num_batches_tracked")},
        "student": array(feature),
        "teacher": array(hint),
        "feature": array(outputs[0]),
        "logits": array(outputs[1]),
        "student_grad": array(slopes[0]),
        "weight_grad": {f"transfer.{key}": array(slope) for key, slope in zip(weights, slopes[1:], strict=True)},
    }


def factor_case(name, channels, factor, norm, decodes, authors, compared):
    """A paraphraser that decodes, or an encoder alone: convolutions of 3x3 with a leaky ReLU of slope 0.1."""

    def layers(kind, sizes):
        for inputs, outputs in sizes:
            yield kind(inputs, outputs, 3, padding=1)
            yield nn.BatchNorm2d(outputs) if norm else nn.Identity()
            yield nn.LeakyReLU(0.1)

    module = nn.Module()
    module.encoder = nn.Sequential(*layers(nn.Conv2d, [(channels, channels), (channels, factor), (factor, factor)]))
    if decodes:
        sizes = [(factor, factor), (factor, channels), (channels, channels)]
        module.decoder = nn.Sequential(*layers(nn.ConvTranspose2d, sizes))
    module = fill(module, name).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    feature = torch.tensor(bell(f"connectors/{name}/feature", (2, channels, 3, 4), 1.0)).requires_grad_()
    coded = module.encoder(feature)
    output = module.decoder(coded) if decodes else coded
    hint = torch.tensor(bell(f"connectors/{name}/hint", tuple(output.shape), 1.0))
    value = F.mse_loss(output, hint)
    weights = dict(module.named_parameters())
    slopes = torch.autograd.grad(value, [feature, *weights.values()])
    try:
        code = authors.load("RepDistiller", "models/util.py", "Paraphraser", "Translator")
        shapes = [2, channels, 3, 4], [2, 2 * factor, 3, 4]
        if decodes:
            theirs = code["Paraphraser"](shapes[0], factor / channels + 1e-9, norm)
        else:
            theirs = code["Translator"](*shapes, 0.5, norm)
        theirs = theirs.double()
        theirs.load_state_dict(before)
        # Their leaky ReLU writes over what a convolution gave, which is no matter without gradients.
        with torch.no_grad():
            given = theirs(feature)
        pairs = zip((coded, output), given, strict=True) if decodes else [(output, given)]
        apart = max(difference(a, b) for a, b in pairs)
        assert apart < 1e-12, f"{name}: {apart}"
        compared.append(name)
    except Missing:
        pass
    return {
        "name": name,
        "channels": channels,
        "factor_channels": factor,
        "norm": norm,
        "decodes": decodes,
        "weights": {key: array(value) for key, value in before.items() if not key.endswith("num_batches_tracked")},
        "feature": array(feature),
        "hint": array(hint),
        "factor": array(coded),
        "output": array(output),
        "loss": value.item(),
        "feature_grad": array(slopes[0]),
        "weight_grad": {key: array(slope) for key, slope in zip(weights, slopes[1:], strict=True)},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-dir", help="folder with checkouts of the authors' code (README.md lists them)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    authors, compared, reused_compared = Authors(arguments.reference_dir), [], []
    square = [(6, 6), (3, 3), (1, 1)]
    other = [(6, 6), (4, 4), (2, 2)], [(5, 5), (2, 2), (3, 3)]
    wide = [(6, 4), (3, 2)]
    review = [
        # Stages of the teacher's sizes, the deepest pooled to a point, as the authors train CIFAR networks.
        review_case("same_sizes", [2, 3, 4], 3, [3, 2, 5], square, square, True, authors, compared),
        review_case("inference", [2, 3, 4], 3, [3, 2, 5], square, square, False, authors, compared),
        # A teacher with larger and with smaller stages: what goes on to a shallower stage has the teacher's size.
        review_case("other_sizes", [2, 3, 2], 3, [2, 3, 2], *other, True, authors, compared),
        # The authors' code knows squares only.
        review_case("not_square", [2, 2], 2, [3, 2], wide, wide, True, authors, compared),
    ]
    conv = [conv_case("conv", 3, 4, 1, True), conv_case("conv_stride_2", 3, 4, 2, False)]
    reused = [
        reused_case("reused", (3, 6), 2, 5, (4, 4), (4, 4), True, authors, reused_compared),
        reused_case("reused_inference", (3, 6), 3, 4, (3, 3), (5, 5), False, authors, reused_compared),
        reused_case("reused_larger_student", (2, 4), 2, 3, (6, 6), (3, 3), True, authors, reused_compared),
        # The authors' code knows squares only.
        reused_case("reused_not_square", (2, 4), 1, 3, (5, 3), (3, 4), True, authors, reused_compared),
    ]
    factors = []
    factor = [
        factor_case("paraphraser", 4, 2, False, True, authors, factors),
        factor_case("paraphraser_norm", 3, 2, True, True, authors, factors),
        factor_case("translator", 3, 2, False, False, authors, factors),
        factor_case("translator_norm", 2, 3, True, False, authors, factors),
    ]
    reference = f"PyTorch {torch.__version__.split('+')[0]} in float64"
    if compared:
        source = f"ReviewKD@{COMMITS['ReviewKD'][:12]} ABF, ReviewKD.forward"
        reference += f"; {source}: {', '.join(compared)}, values and gradients within 1e-12"
    if reused_compared:
        source = f"SimKD@{COMMITS['SimKD'][:12]} SimKD"
        reference += f"; {source}: {', '.join(reused_compared)}, values and gradients within 1e-12"
    if factors:
        source = f"RepDistiller@{COMMITS['RepDistiller'][:12]} Paraphraser, Translator"
        reference += f"; {source}: {', '.join(factors)}, values within 1e-12"
    print(reference)
    kinds = {"review": review, "conv": conv, "reused": reused, "factor": factor}
    lines = {name: ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) for name, cases in kinds.items()}
    text = ",\n".join(f'"{name}": [\n{cases}\n]' for name, cases in lines.items())
    text = f'{{"reference": {json.dumps(reference)},\n{text}}}\n'
    (Path(__file__).parent / "connectors.json").write_text(text)


if __name__ == "__main__":
    main()
