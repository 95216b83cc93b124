"""DIST (Huang 2022, arXiv 2205.10536)."""

from shared import logit_pairs, pair, tempered

PER_SAMPLE = "row i: temperature^2 * (beta * (1 - correlation of row i) + gamma * (1 - mean correlation of columns))"


def cases():
    found = []
    weights = [(1, 1), (2, 0.5), (1, 2)]
    for i, (name, inputs, t) in enumerate(logit_pairs("dist")):
        if inputs["student_logits"].ndim == 2 and "mask" not in inputs and name != "extreme":
            beta, gamma = weights[i % 3]
            found.append((name, {"beta": beta, "gamma": gamma, "temperature": t}, inputs))
    for name, beta, gamma in [("inter_only", 1, 0), ("intra_only", 0, 1)]:
        found.append((name, {"beta": beta, "gamma": gamma, "temperature": 2}, pair(f"dist/{name}", (5, 8), 2.0)))
    return found


def pearson(a, b):
    """Pearson correlation along the last axis; the authors add 1e-8 to the product of the norms."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-8)


def loss(config, inputs):
    student, teacher = (log_probs.exp() for log_probs in tempered(config, inputs))
    scale = config["temperature"] ** 2
    inter = 1 - pearson(student, teacher)
    intra = 1 - pearson(student.T, teacher.T).mean()
    per_sample = scale * (config["beta"] * inter + config["gamma"] * intra)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    names = ["cosine_similarity", "pearson_correlation", "inter_class_relation", "intra_class_relation", "DIST"]
    path = "lib/models/losses/dist_kd.py"
    loss = authors.load("image_classification_sota", path, *names)["DIST"]
    loss = loss(config["beta"], config["gamma"], config["temperature"])
    return [("image_classification_sota", "DIST", loss(inputs["student_logits"], inputs["teacher_logits"]))]
