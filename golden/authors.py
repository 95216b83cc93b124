"""Runs single functions or classes out of other people's checkouts, without importing their packages.

Their code is read from `--reference-dir`, one subfolder per repository; nothing of it is stored here.
"""

import ast
import math
import subprocess
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

# Repository -> the commit that the committed numbers were checked against.
COMMITS = {
    "CA-MKD": "c2f39a9f13c1998e9971815760364587222581ce",
    "LibMTL": "4336804847eaa5e0b924b743d76beec7ac3fdc97",
    "CLIP-KD": "f3ae18b9da8ac8570796c4e113cb8a9006dab18a",
    "TinyCLIP": "ad981bf308f007c4a47c1b34786cc90bbfd2c43c",
    "RepDistiller": "b84f547c5db6a35318d4671d7d5c4de74c822403",
    "mdistiller": "a08d46f10d6102bd6e3f258ca5ac880b020ea259",
    "image_classification_sota": "6f7a70a1dd57fd88413d83909d3d53243068f701",
    "trl": "35def3ee000a87f6839e66f4b7749b06274ed1b3",
    "RKD": "0a6c3c0c190722d428322bf71703c0ae86c25242",
    "ReviewKD": "cede6ea6387ae9b6127de0e561507177bf19c11e",
    "MGD": "2c9da0b28625eb948db57afc02c824452c3910fe",
    "Factor-Transfer-pytorch": "19cce265ebe51c751481041e223a13be2e684322",
    "attention-transfer": "893df5488f93691799f082a70e2521a9dc2ddf2d",
    "TextBrewer": "2c105fa664bbc10669cd2888bd846d2c9b8afca8",
    "llm-recipes": "ab6e79800d28a1820348d72fc43ad964bb51ac29",
    "distillm": "d47e77ff9d27721783b32213be38c1204230cc0a",
    "DSKD": "077337ac989045ccf11a6dd927418e3cf4f40971",
    "LLM_KD_AKL": "ff278be603df44b10afc07da3c7962ec8218aca7",
    "DistillKit": "a61c2e7d25c2e990d45832e12bd8542bdee9c810",
    "torchdistill": "3e4373c45214c5c56eebac481d5bfe8b8735aa05",
    "torchtune": "bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1",
    "Liger-Kernel": "ead96b618e5c67bddc6a6e9bcb99bfe6b5ab661c",
    "axolotl": "067b021c8b87a9e5e380b9173c704cf7340e30f5",
    "Model-Optimizer": "a2fbac7bad8ab446d3f8783dadb0c3366eb0ad73",
    "easydistill": "acbe49b5d9b16b3beb874528056e11dfdfac6d1c",
    "ICKD": "403b8d3d7c3aaa429e4708870d2be1d4daf92f07",
    "overhaul-distillation": "76344a84a7ce23c894f41a2e05b866c9b73fd85a",
    "KD_SRRL": "d2e802f5f57efd4f5bc6326a697b48236008a5b6",
    "SimKD": "2b389c31ed7779aea31e7aaf0bb0f2d8b6ac2f01",
    "cls_KD": "1e5d48f36957ee460d39d7ebc592c6cc7f8f3d66",
    "Teacher-free-Knowledge-Distillation": "d000ab378a409535a5f5f645b473e05e27529a02",
    "kd_data": "6aa18226e817d24a293522cf9863a512eb7c9f9e",
    "Multi-Level-Logit-Distillation": "5ee473fcf193dfb00a0598b64d0acfe6ad58a482",
    "logit-standardization-KD": "f6e5aa5172bad618e801163c3385322eea673754",
    "CTKD": "7d5252241259ae70d38a832371fed9697d15fc14",
    "OFAKD": "f7bb896cac9879040800bde08a8cc2057a904c52",
    "Weighted-Soft-Label-Distillation": "67820dd7c3c733d5331b78b1e66ef8a990391d5e",
}


@contextmanager
def in_float64():
    """While it lasts, code that asks for float32 computes in float64, so that it can be compared to 1e-9."""
    kept, default = (torch.float32, torch.Tensor.float), torch.get_default_dtype()
    torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = kept
        torch.set_default_dtype(default)


class Missing(Exception):
    """The checkout is not there, so the comparison is skipped."""


class Authors:
    """Access to the checkouts below `folder` (None: every comparison is skipped)."""

    def __init__(self, folder):
        self.folder = Path(folder) if folder else None
        self.reported = set()

    def load(self, repository: str, path: str, *names: str, **given) -> dict:
        """Executes the top-level or nested definitions `names` of one file, with torch, nn, F and `given` in scope."""
        source = self.folder / repository / path if self.folder else None
        if source is None or not source.is_file():
            if repository not in self.reported:
                self.reported.add(repository)
                print(f"  {repository}: no checkout given, comparison skipped")
            raise Missing(repository)
        self._check_commit(repository)
        old = ".*size_average.*|.*reduction='elementwise_mean'.*|.*Implicit dimension choice.*|.*'mean' divides the total.*"
        warnings.filterwarnings("ignore", message=old)
        scope = {"torch": torch, "nn": nn, "F": F, "math": math, **given}
        found = {}
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names and node.name not in found:
                node.decorator_list = []
                found[node.name] = node
        for name in names:
            exec(compile(ast.Module([found[name]], type_ignores=[]), str(source), "exec"), scope)
        return {name: scope[name] for name in names}

    def _check_commit(self, repository: str):
        """Warns when the checkout is a git work tree at another commit (an unpacked archive has none to compare)."""
        folder = self.folder / repository
        if repository in self.reported or not (folder / ".git").exists():
            return
        self.reported.add(repository)
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if commit != COMMITS[repository]:
            print(f"  {repository}: checkout is at {commit}, the numbers were made with {COMMITS[repository]}")
