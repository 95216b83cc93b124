"""A training step: a ResNet-20 learns from a ResNet-56 and labels on images of 3 x 32 x 32, 100 classes."""

import time

import torch
import torch.nn.functional as F
from torch import nn

from inputs import targets, uniform

CLASSES = 100
TEMPERATURE = 4.0


def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.downsample(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Sequential):
    """The CIFAR family, depth 6n + 2, with 16, 32 and 64 channels; what `ResNetConfig::from_name` gives on our side."""

    def __init__(self, depth):
        layers, inputs = [conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()], 16
        for stage, outputs in enumerate((16, 32, 64)):
            for block in range((depth - 2) // 6):
                layers.append(Block(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def prepare(batch: int, form: str):
    """A function that takes one step (`eager`, `channels_last` or `compiled`) and gives its seconds and the loss."""
    torch.manual_seed(0)
    student, teacher = ResNet(20).train(), ResNet(56).eval().requires_grad_(False)
    images, classes = uniform(1, (batch, 3, 32, 32), 3.0), targets(batch, CLASSES)
    if form == "channels_last":
        layout = {"memory_format": torch.channels_last}
        student, teacher, images = student.to(**layout), teacher.to(**layout), images.to(**layout)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)

    def loss_of(images):
        with torch.no_grad():
            soft = F.softmax(teacher(images) / TEMPERATURE, dim=1)
        logits = student(images)
        kd = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), soft, reduction="batchmean") * TEMPERATURE**2
        return 0.9 * kd + 0.1 * F.cross_entropy(logits, classes)

    if form == "compiled":
        loss_of = torch.compile(loss_of, dynamic=False)

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images)
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        return time.perf_counter() - start, value, None

    return step
