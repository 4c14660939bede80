"""Read and write PyTorch model folders: ours, and released MILCO checkpoints. All file and network access is here."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from polylex.config import ModelConfig
from polylex.errors import BadModel, ModelNotFound
from polylex.model import milco
from polylex.model.card import TORCH, model_card
from polylex.model.folder import replaced
from polylex.model.modules import write_modules
from polylex.runtime.tokens import Tokens
from polylex.vocab import pivot_names

if TYPE_CHECKING:
    from polylex.model.model import SparseModel

PathLike = str | os.PathLike[str]


def read(
    source: PathLike, *, revision: str | None = None, encoder: PathLike | None = None, pivot: PathLike | None = None
) -> SparseModel:
    """Read a model, in evaluation mode, on the CPU, in float32.

    source    a folder or a hub id "owner/name", holding our layout or a released MILCO checkpoint
    revision  branch, tag or commit of a hub id
    encoder   for a MILCO checkpoint: folder with the config.json of its multilingual encoder, when Polylex does not
              ship it and it is not beside the checkpoint
    pivot     likewise the folder with the vocab.txt and config.json of its English teacher

    Raises ModelNotFound when there is nothing to read, BadModel naming what is missing or does not fit. Safetensors
    are preferred; a .bin is read as tensors only (`weights_only`), never as code.
    """
    from polylex.model.model import SparseModel

    folder = locate(source, revision)
    if milco.is_milco(folder):
        parts = milco.read_parts(folder, str(source), _optional(encoder), _optional(pivot))
        config, names, tokens = parts.config, parts.pivot, parts.tokens
        state = milco.rename(read_tensors(folder))
        config = replace(config, echo_placement="encoder" if "source_head.linear.weight" in state else "none")
    else:
        config = ModelConfig.read(folder)
        _refuse_export(folder)
        names, tokens = pivot_names(config.pivot_vocabulary, folder), Tokens.read(folder)
        state = read_tensors(folder)
    model = SparseModel(config, tokens, names)
    fill(model, state, str(folder))
    return model.eval()


def write(model: SparseModel, folder: PathLike, *, card: str | None = None) -> Path:
    """Write config.json, model.safetensors, tokenizer.json, README.md, and the pivot vocabulary if it is not ours.

    modules.json and config_sentence_transformers.json make it a folder of sentence-transformers too (`modules.py`).
    The folder appears whole or not at all; a model that stands there is replaced. config.weights_id becomes the
    identity of the weights as they are now. `card` is the text of README.md.
    """
    target = Path(folder)
    with replaced(target) as fresh:
        config = fill_folder(model, fresh)
        write_modules(config, fresh)
        (fresh / "README.md").write_text(card or model_card(config, files=TORCH), encoding="utf-8")
    return target


def fill_folder(model: SparseModel, folder: Path) -> ModelConfig:
    """Write weights, tokenizer and configuration into a folder that exists; return the configuration written."""
    config = replace(model.config, weights_id=identity(model))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # Not save_file: it reports a full disk as a fault of the tensors.
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    write_small_files(model, config, folder)
    return config


def write_small_files(model: SparseModel, config: ModelConfig, folder: Path) -> None:
    """Write what a PyTorch folder and an exported one have in common: config.json, tokenizer.json, vocabulary."""
    names = model.vocab.pivot
    if not _is_shipped(config.pivot_vocabulary, names):
        config = replace(config, pivot_vocabulary="pivot.txt")
        (folder / "pivot.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    (folder / "tokenizer.json").write_text(model.tokens.to_json(), encoding="utf-8")


def push(model: SparseModel, repo: str, *, private: bool = False, card: str | None = None) -> str:
    """Upload what `write` writes to the hub repository `repo`, made if need be; return the commit's address."""
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as scratch:
        folder = write(model, Path(scratch) / "model", card=card)
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Polylex model {model.name}"))


def identity(model: nn.Module) -> str:
    """SHA-256 (hex) of all parameters as float32, by name: equal for equal weights, however stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fill(model: SparseModel, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `model`: exactly the model's names and shapes, or BadModel listing what differs."""
    wanted = model.state_dict()
    faults = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unexpected": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(state[name].shape)}, expected {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise BadModel(f"the weights of {where} do not fit its config.json: {told}")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})


# -- files -----------------------------------------------------------------------------------------


def locate(source: PathLike, revision: str | None = None) -> Path:
    """The folder of a model; a hub id is downloaded into the hub's cache, weights in one format only."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if name.count("/") != 1 or folder.is_absolute() or name.startswith("."):
        raise ModelNotFound(f'no model {name!r}: not a folder, and not a hub id such as "owner/name"')
    small = ["*.json", "*.txt", "README.md"]
    found = _download(name, revision, [*small, "*.safetensors"])
    if not any(found.glob("*.safetensors")):
        found = _download(name, revision, [*small, "pytorch_model*.bin"])
    return found


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # `*` also matches "/": leave the checkpoints' training states and ONNX copies where they are.
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as fault:
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        at = f" at revision {revision}" if revision else ""
        raise ModelNotFound(
            f"no model {name!r}{at} in the hub's cache, and it could not be downloaded ({reason}). Check the name and "
            "the network, or download the repository elsewhere and give its folder."
        ) from None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model*.safetensors, or else of pytorch_model*.bin. Raises BadModel."""
    safe = _shards(folder, "model", ".safetensors")
    paths = safe or _shards(folder, "pytorch_model", ".bin")
    if not paths:
        raise BadModel(f"{folder} has neither model.safetensors nor pytorch_model.bin; copy the model again")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors |= load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as fault:
            raise BadModel(f"{path} cannot be read as tensors ({_first_line(fault)}); copy the model again") from None
    return tensors


def _shards(folder: Path, stem: str, suffix: str) -> list[Path]:
    """The file of the tensors, or its parts when an index lists them. Raises BadModel when a part is missing."""
    whole, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    try:
        parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as fault:
        raise BadModel(f"{index} does not list the parts of the weights ({fault}); copy the model again") from None
    paths = [folder / Path(part).name for part in parts]
    for path in paths:
        if not path.is_file():
            raise BadModel(f"{path} is missing, {index.name} lists it; copy the model again")
    return paths


def _refuse_export(folder: Path) -> None:
    if (folder / "encoder.onnx").is_file():
        raise BadModel(
            f"{folder} is an exported model, whose weights are for the runtime: open it with polylex.load(), "
            "or give the PyTorch folder it was exported from"
        )


def _is_shipped(vocabulary: str, names: tuple[str, ...]) -> bool:
    try:
        return pivot_names(vocabulary) == names
    except BadModel:
        return False


def _optional(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _listed(names: Iterable[Any], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
