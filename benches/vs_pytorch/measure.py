"""The time of a step and the memory at its peak, of this process."""

import ctypes
import gc
import time

MOST_CALLS = 1000


def visit(step, seconds: float) -> dict:
    """Takes steps for `seconds`, at least one and at most 1000; the times of all of them and the last one's results."""
    times, end = [], time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < MOST_CALLS):
        took, loss, gradient = step()
        times.append(took)
    return {"seconds": min(times), "median": sorted(times)[len(times) // 2], "calls": len(times)} | {
        "loss": loss,
        "gradient": gradient,
    }


def status(field: str) -> int:
    """A size of /proc/self/status in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def peak(step) -> dict:
    """One step, and the largest growth of the resident memory during it; what was freed before is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS:")
    took, loss, gradient = step()
    return {"seconds": took, "loss": loss, "gradient": gradient, "peak_bytes": status("VmHWM:") - before}
