"""The layout of the released MILCO checkpoints (omai-research/milco-650m and relatives), read without their code.

Their config.json names the multilingual encoder and the English teacher by hub id only. Polylex ships what is needed of
the known ids (assets/encoders); of others a folder is taken: beside the checkpoint, or given by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from polylex.config import ModelConfig
from polylex.errors import BadModel
from polylex.runtime.tokens import Tokens
from polylex.vocab import pivot_names

_SHIPPED = Path(__file__).parent.parent / "assets" / "encoders"

# Their names -> ours, longest prefix first.
_NAMES = {
    "mlm_head.predictions.transform.dense.": "pivot_head.dense.",
    "mlm_head.predictions.transform.LayerNorm.": "pivot_head.norm.",
    "mlm_head.predictions.decoder.": "pivot_head.decoder.",
    "m_model.": "encoder.transformer.",
    "projector.": "connector.linear.",
    "echo.": "source_head.linear.",
}
# Present in some checkpoints and no part of the model: the frozen teacher of stage 1, a sentence vector, a constant.
_UNUSED = ("en_lsr.", "m_model.pooler.", "m_model.embeddings.position_ids")


@dataclass(frozen=True, slots=True)
class Parts:
    """All of a released checkpoint but its tensors."""

    config: ModelConfig
    pivot: tuple[str, ...]
    tokens: Tokens


def is_milco(folder: Path) -> bool:
    """Whether config.json of `folder` is of the released layout."""
    path = folder / "config.json"
    return path.is_file() and _table(path).get("model_type") == "milco"


def read_parts(folder: Path, source: str, encoder: Path | None, pivot: Path | None) -> Parts:
    """Configuration, English vocabulary and tokenizer of a released checkpoint.

    Which tokens speak, case and prompts are as its authors encode: special tokens speak in both views, texts stay as
    they are. Raises BadModel naming the folder to give when an id is not known.
    """
    table = _table(folder / "config.json")
    body = _part(table, "multilingual_encoder_checkpoint", folder, encoder, "encoder")
    head = _part(table, "lsr_encoder_checkpoint", folder, pivot, "pivot")
    body_config, head_config = _table(body / "config.json"), _table(head / "config.json")
    names = _pivot(head)
    tokens = Tokens.read(folder if _has_tokenizer(folder) else body)
    longest = _longest(folder, body_config)
    config = ModelConfig(
        name=Path(source).name,
        encoder=body_config,
        pivot_size=len(names),
        pivot_width=int(head_config.get("hidden_size", 768)),
        pivot_vocabulary=str(head_config.get("pivot_vocabulary", "vocab.txt")),
        pivot_norm_eps=float(head_config.get("layer_norm_eps", 1e-12)),
        pivot_speakers="all",
        source_speakers="all",
        empty_speaks=True,
        max_length=longest,
        stride=min(64, longest // 8),
    )
    return Parts(config, names, tokens)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names; unknown names stay, for the reader to complain of."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_UNUSED):
            continue
        prefix = next((old for old in _NAMES if name.startswith(old)), "")
        renamed[_NAMES.get(prefix, "") + name[len(prefix) :]] = tensor
    if "scale" in renamed:
        renamed["source_head.scale"] = renamed.pop("scale").reshape(1)
    # BERT ties these two; which of them a file keeps depends on what wrote it.
    tied = renamed.pop("mlm_head.predictions.bias", None)
    if tied is not None:
        renamed.setdefault("pivot_head.decoder.bias", tied)
    return renamed


def _part(table: Mapping[str, Any], key: str, folder: Path, given: Path | None, argument: str) -> Path:
    """The folder that stands for a hub id in the checkpoint's config.json."""
    name = str(table.get(key, ""))
    if given is not None:
        places = [given]
    else:
        places = [_SHIPPED / name.replace("/", "--"), folder / name, folder.parent / name] if name else []
    for place in places:
        if (place / "config.json").is_file():
            return place
    shipped = ", ".join(sorted(path.name.replace("--", "/") for path in _SHIPPED.iterdir()))
    raise BadModel(
        f"{folder}/config.json has {key} {name!r}, and no config.json was found in {_places(places)}. "
        f"Shipped with Polylex: {shipped}. For another, give its folder: from_pretrained(..., {argument}=folder)."
    )


def _pivot(head: Path) -> tuple[str, ...]:
    shipped = _table(head / "config.json").get("pivot_vocabulary")
    return pivot_names(str(shipped)) if shipped else pivot_names("vocab.txt", head)


def _longest(folder: Path, encoder: Mapping[str, Any]) -> int:
    """Tokens a window may have: what the tokenizer says, as far as the encoder has positions."""
    from polylex.model.encoder import first_position

    positions = int(encoder.get("max_position_embeddings", 512)) - first_position(encoder)
    path = folder / "tokenizer_config.json"
    said = _table(path).get("model_max_length", positions) if path.is_file() else positions
    return int(min(said, positions))


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.json.gz"))


def _places(places: list[Path]) -> str:
    return " or ".join(str(place) for place in places) or "any place, since it is not named"


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BadModel(f"{path} cannot be read ({fault}); copy the model again") from None
    if not isinstance(table, dict):
        raise BadModel(f"{path} holds {type(table).__name__}, expected an object; copy the model again")
    return table
