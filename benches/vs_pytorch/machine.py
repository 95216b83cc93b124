"""What the numbers were measured on and with."""

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")[0]


def from_proc(file: str, pattern: str) -> str:
    found = re.search(pattern, Path("/proc", file).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def facts() -> dict:
    burn = re.search(r'name = "burn"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": from_proc("cpuinfo", r"^model name\s*:(.*)$"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(from_proc("meminfo", r"^MemTotal:\s*(\d+)")) / 2**20),
        "widest_simd": "AVX-512" if "avx512f" in from_proc("cpuinfo", r"^flags\s*:(.*)$").split() else "AVX2 or less",
        "rustc": command("rustc", "--version").split()[1],
        "burn": burn[1],
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "liger": metadata.version("liger-kernel"),
        "gxx": command("g++", "-dumpfullversion"),
    }


def sentence(arguments, visits: int) -> str:
    """Date, machine, versions and command, and how a time comes about."""
    x = facts()
    return (
        f"Measured on {x['date']} on {x['cores']} cores of {x['cpu']} ({x['widest_simd']}), {x['memory_gib']} GiB, with "
        f"rustc {x['rustc']}, Burn {x['burn']}, Python {x['python']}, PyTorch {x['torch']}, Liger-Kernel {x['liger']} "
        f"and g++ {x['gxx']}, by `{arguments.command}`: the shortest step of {visits} visits of "
        f"{arguments.seconds:g} s to each variant in turn."
    )
