"""CIFAR networks with the parameter names of RepDistiller, written independently; `build` also gives torchvision's.

Every network answers `forward(images) -> (logits, features)`, features being a dict of named tensors.
"""

import torch.nn as nn
import torch.nn.functional as F
import torchvision


def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class Residual(nn.Module):
    """conv-bn-relu-conv-bn, plus the input (through a 1x1 convolution where the shape changes)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        """The sum before its activation."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return shortcut + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class CifarResNet(nn.Module):
    """Depth 6n+2 on 32x32 images, stages at strides 1, 2, 2."""

    def __init__(self, depth, widths, classes):
        super().__init__()
        self.conv1, self.bn1 = conv(3, widths[0], 3), nn.BatchNorm2d(widths[0])
        for stage in (1, 2, 3):
            blocks = []
            for i in range((depth - 2) // 6):
                first = i == 0
                blocks.append(Residual(widths[stage - first], widths[stage], 2 if first and stage > 1 else 1))
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        features = {"stem": x}
        for name in ("layer1", "layer2", "layer3"):
            for block in self.get_submodule(name):
                before = block(x)
                x = F.relu(before)
            features |= {f"{name}_preact": before, name: x}
        features["pooled"] = x.mean((2, 3))
        return self.fc(features["pooled"]), features


class PreActivation(nn.Module):
    """Wide ResNet block: bn-relu-conv-bn-relu-conv; a 1x1 convolution shortcut reads the activated input."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3)
        self.convShortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(activated))))


class Group(nn.Module):
    """Holds the blocks of one group under the name `layer`."""

    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)


class WideResNet(nn.Module):
    """Depth 6n+4 on 32x32 images; `blockN_preact` is block N's output after the batch norm that follows it."""

    def __init__(self, depth, width, classes):
        super().__init__()
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = conv(3, 16, 3)
        for stage in (1, 2, 3):
            blocks = []
            for i in range((depth - 4) // 6):
                first = i == 0
                blocks.append(PreActivation(widths[stage - first], widths[stage], 2 if first and stage > 1 else 1))
            self.add_module(f"block{stage}", Group(*blocks))
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x):
        features, seen = {}, {}
        following = {"block1": self.block2.layer[0].bn1, "block2": self.block3.layer[0].bn1, "block3": self.bn1}
        hooks = [
            bn.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
            for name, bn in following.items()
        ]
        x = features["stem"] = self.conv1(x)
        for name in following:
            for block in self.get_submodule(name).layer:
                x = block(x)
            features[name] = x
        features["pooled"] = F.relu(self.bn1(x)).mean((2, 3))
        for hook in hooks:
            hook.remove()
        features |= {f"{name}_preact": tensor for name, tensor in seen.items()}
        return self.fc(features["pooled"]), features


class TorchvisionFeatures(nn.Module):
    """Reads the stages of a torchvision ResNet with hooks; torchvision's own forward does the work."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        features, net, hooks = {}, self.network, []

        def keep(name):
            return lambda _, __, out: features.update({name: out.clone()})

        def keep_input(name):
            return lambda _, inputs: features.update({name: inputs[0].clone()})

        hooks.append(net.relu.register_forward_hook(keep("stem")))
        hooks.append(net.avgpool.register_forward_hook(lambda _, __, out: features.update(pooled=out.flatten(1))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            stage = net.get_submodule(name)
            # The block's only ReLU runs several times; its last input is the sum before the activation.
            hooks.append(stage[-1].relu.register_forward_pre_hook(keep_input(f"{name}_preact")))
            hooks.append(stage.register_forward_hook(keep(name)))
        logits = net(x)
        for hook in hooks:
            hook.remove()
        return logits, features

    def state_dict(self, *args, **kwargs):
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state, strict=True):
        return self.network.load_state_dict(state, strict=strict)


def build(arch: str, classes: int) -> nn.Module:
    """A network by name, with PyTorch's own initial weights."""
    cifar = {
        "cifar_resnet8": (8, [16, 16, 32, 64]),
        "cifar_resnet20": (20, [16, 16, 32, 64]),
        "cifar_resnet8x4": (8, [32, 64, 128, 256]),
    }
    if arch in cifar:
        return CifarResNet(*cifar[arch], classes)
    if arch == "wrn_16_2":
        return WideResNet(16, 2, classes)
    return TorchvisionFeatures(torchvision.models.get_model(arch, weights=None, num_classes=classes))
