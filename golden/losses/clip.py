"""CLIP's contrastive loss (Radford 2021, arXiv 2103.00020, figure 3)."""

from clip import logits, pairs, shapes, unit

PER_SAMPLE = "half the cross-entropy of the sample's image among texts, and half that of its text among images"


def cases():
    return [
        (name, {}, {key: value for key, value in inputs.items() if key.startswith("student")})
        for name, inputs in shapes("clip", other_widths=False)
    ]


def loss(config, inputs):
    found = logits(inputs, "student")
    per_sample = (pairs(found) + pairs(found.mT)) / 2
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    clip = authors.load("CLIP-KD", "src/open_clip/loss.py", "ClipLoss")["ClipLoss"]
    return [("CLIP-KD", "ClipLoss", clip()(*unit(inputs, "student"), inputs["student_logit_scale"]))]
