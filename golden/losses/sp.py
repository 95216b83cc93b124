"""Similarity preserving (Tung 2019, arXiv 1907.09682)."""

from shared import features

PER_SAMPLE = "mean over the row of the similarity matrix that belongs to the sample"


def cases():
    shapes = [
        ("rows", (5, 7), (5, 4)),
        ("images", (4, 3, 4, 4), (4, 5, 2, 2)),
        ("batch_of_two", (2, 6), (2, 6)),
        ("batch_of_one", (1, 6), (1, 6)),
        ("larger_batch", (9, 4), (9, 6)),
    ]
    return [(n, {}, features(f"sp/{n}", s, t)) for n, s, t in shapes]


def loss(config, inputs):
    grams = []
    for features in (inputs["student"].flatten(1), inputs["teacher"].flatten(1)):
        gram = features @ features.T
        grams.append(gram / gram.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12))
    per_sample = (grams[0] - grams[1]).pow(2).mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    loss = authors.load("RepDistiller", "distiller_zoo/SP.py", "Similarity")["Similarity"]
    return [("RepDistiller", "Similarity", loss()([inputs["student"]], [inputs["teacher"]])[0].sum())]
