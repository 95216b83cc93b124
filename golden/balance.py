"""Steps of training under the balances of several tasks, by their papers' formulas and PyTorch's autograd: balance.json.

Three tasks share a vector h of four numbers; the loss of a task is scale * mean((h - target)^2) + floor.
"""

import argparse
import json
from pathlib import Path

import torch

from authors import Authors, Missing
from random_numbers import bell

RATE = 0.1
STEPS = 4
SCALES = [3.0, 0.5, 1.25]
FLOORS = [0.25, 0.5, 0.0]


def draw(name):
    """Exact in float32, in which the tests compute."""
    return torch.from_numpy(bell(f"balance/{name}", (4,), 1.0))


START = draw("start")
TARGETS = [draw(f"target{task}") for task in range(3)]


def losses(h):
    rows = zip(SCALES, TARGETS, FLOORS)
    return torch.stack([scale * (h - target).square().mean() + floor for scale, target, floor in rows])


def uncertainty():
    """Kendall 2018, equation 10: the sum of L / sigma^2 + log sigma, sigma learned as s = log sigma^2."""
    h, s = START.clone().requires_grad_(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    steps = []
    for _ in range(STEPS):
        task_losses = losses(h)
        sigma = (s / 2).exp()
        total = (task_losses / sigma.square() + sigma.log()).sum()
        steps.append(record(h, 1 / sigma.square(), task_losses, total))
        gradients = torch.autograd.grad(total, [h, s])
        with torch.no_grad():
            h -= RATE * gradients[0]
            s -= RATE * gradients[1]
    return steps, h


def relative_l_grad(u, task_gradients, left, alpha):
    """Chen 2018, equation 2, at the weights 3 softmax(u), over the mean norm."""
    weights = len(u) * torch.softmax(u, 0)
    norms = torch.stack([(weight * gradient).norm() for weight, gradient in zip(weights, task_gradients)])
    rate = left / left.mean()
    mean = norms.mean().detach()
    return (norms - mean * rate**alpha).abs().sum() / mean, mean


def grad_norm(alpha, learning_rate, compare):
    h, u = START.clone().requires_grad_(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    first, steps = None, []
    for _ in range(STEPS):
        task_losses = losses(h)
        task_gradients = [torch.autograd.grad(loss, h, retain_graph=True)[0] for loss in task_losses]
        first = task_losses.detach() if first is None else first
        left = (task_losses / first).detach()
        weights = (3 * torch.softmax(u, 0)).detach()
        total = (weights * task_losses).sum()
        steps.append(record(h, weights, task_losses, total))
        value, mean = relative_l_grad(u, task_gradients, left, alpha)
        (gradient,) = torch.autograd.grad(value, u)
        compare(u, torch.stack(task_gradients), task_losses.detach(), first, alpha, gradient * mean)
        (shared,) = torch.autograd.grad(total, h)
        with torch.no_grad():
            h -= RATE * shared
            u -= learning_rate * gradient
    return steps, h


def record(h, weights, task_losses, total):
    values = {"h": h, "weights": weights, "losses": task_losses, "total": total}
    return {name: value.detach().tolist() for name, value in values.items()}


def libmtl_grad_norm(authors, worst):
    """A function that compares the gradient of u with LibMTL's `GradNorm.backward` on the gradients at the features."""
    kind = authors.load("LibMTL", "LibMTL/weighting/GradNorm.py", "GradNorm", AbsWeighting=torch.nn.Module)["GradNorm"]

    def compare(u, task_gradients, task_losses, first, alpha, gradient):
        theirs = kind()
        theirs.task_num, theirs.device, theirs.epoch, theirs.rep_grad = 3, "cpu", 1, False
        theirs.task_name = range(3)
        theirs.init_param()
        theirs.loss_scale = torch.nn.Parameter(u.detach().clone())
        theirs.train_loss_buffer = first.unsqueeze(1).numpy()
        theirs._get_grads = lambda losses, mode: task_gradients
        theirs._backward_new_grads = lambda weights, grads: None
        torch.set_default_dtype(torch.float64)
        theirs.backward(task_losses, alpha=alpha)
        torch.set_default_dtype(torch.float32)
        difference = (theirs.loss_scale.grad - gradient).abs().max() / gradient.abs().max().clamp_min(1e-12)
        worst.append(float(difference))
        assert difference < 1e-9, (theirs.loss_scale.grad, gradient)

    return compare


def libmtl_uncertainty(authors, steps):
    """LibMTL's `UW` at s - ln 2 gives our weights."""
    kind = authors.load("LibMTL", "LibMTL/weighting/UW.py", "UW", AbsWeighting=torch.nn.Module)["UW"]
    for step in steps:
        theirs = kind()
        theirs.task_num, theirs.device = 3, "cpu"
        theirs.init_param()
        weights = torch.tensor(step["weights"], dtype=torch.float64)
        theirs.loss_scale = torch.nn.Parameter(-weights.log() - torch.log(torch.tensor(2.0, dtype=torch.float64)))
        task_losses = torch.tensor(step["losses"], dtype=torch.float64, requires_grad=True)
        given = torch.from_numpy(theirs.backward(task_losses))
        assert torch.allclose(given, weights, rtol=1e-12)
        assert torch.allclose(task_losses.grad, weights, rtol=1e-12)
        ours = weights * torch.tensor(step["losses"], dtype=torch.float64)
        assert torch.allclose(theirs.loss_scale.grad, 0.5 - ours, rtol=1e-12)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-dir")
    authors, worst = Authors(parser.parse_args().reference_dir), []
    reference = f"PyTorch {torch.__version__.split('+')[0]}, float64, by the papers' formulas"
    try:
        compare = libmtl_grad_norm(authors, worst)
    except Missing:
        compare = lambda *_: None  # noqa: E731
    cases = []
    steps, end = uncertainty()
    cases.append({"balance": "uncertainty", "steps": steps, "end": end.detach().tolist()})
    for alpha, learning_rate in [(0.0, 0.1), (1.5, 0.1), (0.12, 0.025)]:
        steps, end = grad_norm(alpha, learning_rate, compare)
        settings = {"balance": {"grad_norm": {"alpha": alpha, "learning_rate": learning_rate}}}
        cases.append({**settings, "steps": steps, "end": end.detach().tolist()})
    if worst:
        libmtl_uncertainty(authors, cases[0]["steps"])
        from authors import COMMITS

        commit = COMMITS["LibMTL"][:8]
        reference += (
            f"; the update of GradNorm agrees with LibMTL {commit} `GradNorm.backward` in {len(worst)} steps"
            f" (largest relative difference {max(worst):.1e}), weights and gradients with `UW.backward` at s - ln 2"
        )
    document = {
        "reference": reference,
        "learning_rate": RATE,
        "start": START.tolist(),
        "tasks": [{"scale": s, "target": t.tolist(), "floor": f} for s, t, f in zip(SCALES, TARGETS, FLOORS)],
        "cases": cases,
    }
    path = Path(__file__).with_name("balance.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{path.name}: {len(cases)} cases; {reference}")


if __name__ == "__main__":
    main()
