"""What a result carries so that others can check it: date, commit, command, machine, versions of packages."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_FOLDERS = re.compile(r"/(?:[^/\s,:=+]+/)+")


def provenance(packages: Sequence[str] = ()) -> dict[str, Any]:
    """The circumstances of this process, for the head of a results file; `packages` are those besides the usual."""
    usual = ("polylex", "numpy", "onnxruntime", "tokenizers")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": command(),
        "machine": machine(),
        "packages": {name: found for name in (*usual, *packages) if (found := _version(name))},
    }


def command() -> str:
    """The command line, without the folders that only this machine has."""
    return " ".join(
        _FOLDERS.sub("", argument) for argument in ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    )


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, memory in bytes, operating system, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a results file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _commit() -> str:
    """The commit of this checkout, "+" behind it where files differ from it, "" outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=_HERE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
