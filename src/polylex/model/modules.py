"""modules.json: what makes a PyTorch folder a `SparseEncoder` of sentence-transformers too. Two files, no import.

modules.json                      the class that reads the folder: polylex.interop.sentence_transformers.PolylexModule
config_sentence_transformers.json kind of model, prompts, similarity, and that it needs polylex
"""

from __future__ import annotations

import json
from pathlib import Path

from polylex.config import ModelConfig

_MODULES = [{"idx": 0, "name": "0", "path": "", "type": "polylex.interop.sentence_transformers.PolylexModule"}]


def prompts(config: ModelConfig) -> tuple[dict[str, str], str | None]:
    """Prompts by their names there, and the name of the one for a text of which nothing is said: a document's."""
    said = {"query": config.query_prompt, "document": config.document_prompt}
    return said, "document" if config.document_prompt else None


def write_modules(config: ModelConfig, folder: Path) -> None:
    """Write both files."""
    said, default = prompts(config)
    settings = {
        "model_type": "SparseEncoder",
        "prompts": said,
        "default_prompt_name": default,
        "similarity_fn_name": "dot",
        "requirements": {"polylex": {"specifier": ">=0.1", "reason": "it holds the class that modules.json names"}},
    }
    for name, table in (("modules.json", _MODULES), ("config_sentence_transformers.json", settings)):
        (folder / name).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
