"""ModelConfig: what a model is, as it stands in config.json. Frozen, validated, no network, no files but its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from polylex.errors import BadModel

FORMAT = "polylex-model"
VERSION = 1

Speakers = Literal["all", "content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Architecture and text handling of one model; equal in the PyTorch folder and in the exported one.

    name              str   shown to people and kept in every index; no meaning to the code
    encoder           dict  the backbone's configuration as `transformers` writes it (model_type, hidden_size [Dm], ...)
    pivot_size        int   V, terms of the pivot view
    pivot_width       int   De, width of the English MLM head
    pivot_vocabulary  str   name of a vocabulary shipped with Polylex ("bert-base-uncased"), or of a text file in the
                            model's folder with one term a line
    pivot_norm_eps    float epsilon of the head's LayerNorm
    echo_placement    str   "encoder": relu(Linear(Dm, 1)(H)) * scale, as the released weights have it;
                            "head": one more row of the English head, relu(Z[t, ECHO]); "none": no source view
    pivot_speakers    str   which tokens enter the pivot maximum: "all" real positions, or "content" (not <s>, </s>)
    source_speakers   str   which tokens echo: "all" or "content"
    empty_speaks      bool  whether a text without a token of its own still gets the terms of its special tokens, as the
                            released weights do; otherwise it is the empty vector
    max_length        int   tokens a window may have, special tokens included
    stride            int   tokens two neighbouring windows of a long document share
    lowercase         bool  lower-case texts before the tokenizer
    query_prompt      str   put before every query; document_prompt the same for documents
    weights_id        str   SHA-256 (hex) of the float weights this model came from; "" while training.
                            Exports keep it, so that an int8 query meets a float document, but never another model's.
    """

    name: str
    encoder: Mapping[str, Any] = field(default_factory=dict)
    pivot_size: int
    pivot_width: int
    pivot_vocabulary: str = "bert-base-uncased"
    pivot_norm_eps: float = 1e-12
    echo_placement: Literal["encoder", "head", "none"] = "encoder"
    pivot_speakers: Speakers = "all"
    source_speakers: Speakers = "content"
    empty_speaks: bool = False
    max_length: int = 512
    stride: int = 64
    lowercase: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    weights_id: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("echo_placement", ("encoder", "head", "none")),
            ("pivot_speakers", ("all", "content")),
            ("source_speakers", ("all", "content")),
        ):
            if getattr(self, name) not in allowed:
                raise BadModel(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("pivot_size", "pivot_width"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise BadModel(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}")
        if self.max_length < 8:
            raise BadModel(f"max_length must be at least 8 tokens, got {self.max_length}")
        if not 0 <= self.stride <= self.max_length // 2:
            raise BadModel(f"stride must be between 0 and max_length / 2 = {self.max_length // 2}, got {self.stride}")
        if not self.pivot_norm_eps > 0:
            raise BadModel(f"pivot_norm_eps must be above 0, got {self.pivot_norm_eps}")

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read `folder`/config.json. Raises BadModel naming the fault."""
        path = folder / "config.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadModel(f"{path} does not exist; a model folder holds config.json and the weights") from None
        except (ValueError, UnicodeDecodeError) as fault:
            raise BadModel(f"{path} is not JSON ({fault}); copy the model again") from None
        return cls.from_dict(table, str(path))

    @classmethod
    def from_dict(cls, table: Any, where: str) -> ModelConfig:  # noqa: ANN401 - any JSON value may stand in the file
        """Build from a parsed config.json; `where` names it in errors. Unknown keys are refused."""
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise BadModel(f"{where} is not a Polylex model (no format {FORMAT!r}); see docs/models.md")
        if table.get("version") != VERSION:
            raise BadModel(
                f"{where} has format version {table.get('version')!r}, this release reads {VERSION}; upgrade polylex"
            )
        known = {f.name for f in fields(cls)}
        settings = {key: value for key, value in table.items() if key not in ("format", "version")}
        for key in settings.keys() - known:
            near = get_close_matches(key, known, 1)
            raise BadModel(f"{where}: unknown setting {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        try:
            return cls(**settings)
        except TypeError as fault:
            raise BadModel(f"{where}: {fault}") from None

    def to_json(self) -> str:
        """The text of config.json."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"
