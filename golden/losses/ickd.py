"""Inter-channel correlation, ICKD-C (Liu 2021, arXiv 2202.03680)."""

import torch

from shared import features

PER_SAMPLE = "sum over the channels' pairs, over the number of channels"


def cases():
    shapes = [
        ("default", (3, 4, 3, 3), (3, 4, 3, 3)),
        ("larger_teacher", (2, 3, 2, 2), (2, 3, 4, 5)),
        ("larger_student", (2, 3, 5, 3), (2, 3, 2, 2)),
        ("batch_of_one", (1, 5, 2, 3), (1, 5, 2, 3)),
        ("one_pixel", (3, 4, 1, 1), (3, 4, 2, 1)),
        ("scale_30", (2, 4, 3, 2), (2, 4, 3, 2)),
    ]
    found = [(n, {}, features(f"ickd/{n}", s, t, 30.0 if n == "scale_30" else 1.0)) for n, s, t in shapes]
    silent = features("ickd/silent_channel", (2, 3, 2, 3))
    silent["teacher"][0, 1] = 0.0
    return [*found, ("silent_channel", {}, silent)]


def loss(config, inputs):
    maps = []
    for features in (inputs["student"].flatten(2), inputs["teacher"].flatten(2)):
        correlation = torch.einsum("ncp,ndp->ncd", features, features)
        length = correlation.norm(dim=2, keepdim=True)
        maps.append(correlation / torch.where(length > 0, length, 1.0))
    per_sample = (maps[0] - maps[1]).pow(2).sum((1, 2)) / maps[0].shape[1]
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    original = authors.load("ICKD", "Cifar100/distiller_zoo/ICKD.py", "batch_loss")["batch_loss"]
    path = "torchdistill/losses/mid_level.py"
    torchdistill = authors.load("torchdistill", path, "ChSimLoss")["ChSimLoss"]({})
    sides = inputs["student"], inputs["teacher"]

    class Connected:
        """The student's embedding is a connector's work and done before."""

        @staticmethod
        def embed_s(features):
            return features

    return [
        ("ICKD", "ICKDLoss.batch_loss after embed_s", original(Connected, *sides)),
        ("torchdistill", "ChSimLoss * batch", torchdistill.batch_loss(*sides) * len(sides[0])),
    ]
