"""Reverse KL (MiniLLM, arXiv 2306.08543)."""

from shared import kl, logit_pairs, rows, tempered, trl_jsd


def cases():
    return [(name, {"temperature": t}, inputs) for name, inputs, t in logit_pairs("reverse_kl")]


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    return config["temperature"] ** 2 * kl(student, teacher)


def authors(authors, config, inputs):
    return trl_jsd(authors, {**config, "beta": 1}, inputs)
