"""Where a model is: the bundled one, a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from polylex.errors import MissingExtra, ModelNotFound

if TYPE_CHECKING:
    from polylex.model.placed import PlacedEncoder
    from polylex.runtime.encoder import Encoder

DEFAULT = "polylex-mini"
_ASSETS = Path(__file__).parent / "assets"
# What an exported model consists of; nothing else is downloaded.
_FILES = ["config.json", "tokenizer.json", "tokenizer.json.gz", "*.onnx", "model.safetensors", "*.txt", "README.md"]
# What a SPLADE model of transformers or sentence-transformers has beside them.
_FILES += ["modules.json", "*_config.json", "config_sentence_transformers.json", "*/config.json", "tokenizer.model"]


def bundled() -> list[str]:
    """Names of the models that come with Polylex."""
    return sorted(path.parent.name for path in _ASSETS.glob("*/config.json"))


def locate(model: str | os.PathLike[str] = DEFAULT, *, revision: str | None = None) -> Path:
    """The folder of a model: a bundled name, a folder, or a hub id "owner/name" (downloaded once, then cached).

    Raises ModelNotFound, saying what was tried.
    """
    path = Path(model)
    if path.is_dir():
        return path
    name = str(model)
    if (_ASSETS / name / "config.json").is_file() and name == Path(name).name:
        return _ASSETS / name
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise ModelNotFound(
            f"no model {name!r}: not a folder, not bundled ({', '.join(bundled()) or 'none'}), "
            'and not a hub id such as "owner/name"'
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as fault:  # the hub client raises many kinds (network, HTTP, missing, gated, offline)
        raise ModelNotFound(
            f"{name!r} is neither a folder nor bundled, and the Hugging Face hub did not give it: {fault}. "
            "Check the name and the network, or download the folder and give its path."
        ) from fault


def load(
    model: str | os.PathLike[str] = DEFAULT, *, revision: str | None = None, threads: int | None = None
) -> Encoder:
    """Open a model for encoding; without arguments the bundled one, offline.

    model     bundled name, folder, or hub id; of an exported Polylex model, or (with the extra polylex[model]) of a
              SPLADE model of sentence-transformers or a masked language model of transformers
    revision  branch, tag or commit on the hub
    threads   texts encoded at one time; the cores this process may use by default
    """
    encoder = _open(locate(model, revision=revision), threads)
    if not Path(model).is_dir():
        encoder.source = str(model)  # a name means the same on another machine, a folder of this one may not
    return encoder


def load_on(model: str | os.PathLike[str], device: str, *, batch_size: int = 32) -> PlacedEncoder:
    """Open a PyTorch model on a device, such as "cuda" or "cuda:1", to encode many texts; needs polylex[model].

    model       folder or hub id with the weights in PyTorch's layout: what was trained, not what was exported from it
    batch_size  windows encoded at one time

    Raises BadInput for a device that is not there, BadModel for a folder of another kind, MissingExtra.
    """
    try:
        from polylex.model.placed import PlacedEncoder
    except ImportError:
        raise MissingExtra("torch", "model", f"Encoding on {device}") from None
    return PlacedEncoder(model, device, batch_size=batch_size)


def _open(folder: Path, threads: int | None) -> Encoder:
    if is_foreign(folder):
        from polylex.model.splade import SpladeEncoder

        return SpladeEncoder(folder, threads=threads)
    from polylex.runtime.encoder import Encoder

    return Encoder(folder, threads=threads)


def is_foreign(folder: Path) -> bool:
    """Whether a folder was written by transformers or sentence-transformers, and not by Polylex as well."""
    try:
        table = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = None
    if isinstance(table, dict) and "format" in table:
        return False
    return (folder / "modules.json").is_file() or (isinstance(table, dict) and "architectures" in table)
