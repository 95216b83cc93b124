"""The measured times as markdown, and their place in a file."""

from pathlib import Path

LOSSES = {
    "kd": "KD, T = 2",
    "reverse_kl": "reverse KL",
    "jsd": "JSD, beta 0.5",
    "skew_kl": "skew KL, alpha 0.1",
    "kd_cross_entropy": "KD + cross-entropy",
    "dkd": "DKD, T = 4",
    "kd_sparse": "KD, top 64, T = 2",
}


def number(value: float) -> str:
    """Three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def table(header: list, rows: list) -> str:
    """Columns of equal width, the first one to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def losses(rows: int, classes: int, floor: float, measured: dict, devices: list) -> str:
    """One size. Ratios are given for logits that are handed over, then for those that are kept, then with a heap that
    keeps its buffers."""
    header = ["ms", "handed over", "kept", "ours, heap kept", "eager", "heap kept", "compiled"]
    header += ["eager / ours", "heap kept / ours", "compiled / ours", "ours / floor"]
    lines = []
    for loss, times in measured.items():
        for device in devices:
            ours = [times.get(f"{device} handed over"), times[f"{device} kept"], times[f"{device} heap"]]
            theirs = [times[variant] for variant in ("eager", "heap", "compiled")]
            there = [time for time in ours if time is not None]
            cells = [LOSSES[loss] + ("" if device == "flex" else f", {device}")]
            cells += ["-" if time is None else number(time * 1e3) for time in ours + theirs]
            cells += [", ".join(number(time / mine) for mine in there) for time in theirs]
            cells.append(", ".join(number(mine / floor) for mine in there))
            lines.append(cells)
    return f"### {rows} x {classes}\n\nFloor: {number(floor * 1e3)} ms.\n\n{table(header, lines)}"


def linear(loss: str, sizes: tuple, times: dict, peaks: dict) -> str:
    """One loss. A form is compared with the matrix products of its own side."""
    tokens, hidden, vocabulary = sizes
    name = {"jsd": "JSD, beta 0.5", "kd": "KD, T = 1"}[loss]
    labels = {
        "products": "matrix products alone",
        "chunked": "chunked",
        "unchunked": "unchunked",
        "naive": "unchunked",
    }
    sides = {
        "eager": "PyTorch eager",
        "heap": "PyTorch, heap kept",
        "compiled": "PyTorch compiled",
        "flex": "ours, flex",
        "libtorch": "ours, libtorch",
    }
    lines = []
    for cell, seconds in times.items():
        variant, form = cell.split()
        side = variant if f"{variant} products" in times else "eager"
        peak = f"{peaks[cell] / 1e6:.0f}" if cell in peaks else "-"
        ratio = number(seconds / times[f"{side} products"])
        form, _, chunk = form.partition("@")
        label = f"Liger, chunks of {chunk}" if chunk else labels[form]
        lines.append([f"{sides[variant]}: {label}", number(seconds), ratio, peak])
    header = [name, "s", "/ matrix products", "peak MB"]
    return f"### {name}: {tokens} tokens, hidden {hidden}, vocabulary {vocabulary}\n\n{table(header, lines)}"


def step(batch: int, times: dict, parts: dict) -> str:
    """Whole steps, and the parts of ours."""
    labels = {
        "flex": "ours, flex",
        "libtorch": "ours, libtorch",
        "eager": "PyTorch eager",
        "heap": "PyTorch eager, heap kept",
        "channels_last": "PyTorch eager, channels last",
        "heap channels_last": "PyTorch eager, channels last, heap kept",
        "compiled": "PyTorch compiled",
    }
    lines = [
        [labels[cell], number(seconds * 1e3), number(seconds / times["eager"])] for cell, seconds in times.items()
    ]
    header = [f"ResNet-20 from ResNet-56, batch {batch}", "ms", "/ PyTorch eager"]
    whole = table(header, lines)
    lines = []
    for device, of in parts.items():
        total = sum(of.values())
        lines += [[f"{labels[device]}: {name}", number(time * 1e3), f"{time / total:.0%}"] for name, time in of.items()]
    return f"{whole}\n\n{table(['Part of a step', 'ms', 'share'], lines)}"


def replace(path: Path, section: str, text: str):
    """Puts `text` between the markers of `section`."""
    begin, end = f"<!-- vs-pytorch {section}: begin -->", f"<!-- vs-pytorch {section}: end -->"
    before, rest = path.read_text().split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
