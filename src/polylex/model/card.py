"""The model card (README.md) of a folder, with the YAML front matter that the Hugging Face hub reads."""

from __future__ import annotations

from polylex.config import ModelConfig

_BLANK = """\
Training data, licence and evaluation have not been written down yet: whoever publishes this model should.
"""


def model_card(config: ModelConfig, *, files: str, facts: str = _BLANK, licence: str | None = None) -> str:
    """The text of README.md.

    files    what kind of folder this is, one sentence
    facts    Markdown about origin, training data, licences and figures
    licence  SPDX id in lower case as the hub wants it, e.g. "apache-2.0"; left out when not known
    """
    front = [
        "---",
        "library_name: polylex",
        "pipeline_tag: feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in ("sparse-encoder", "sparse", "splade", "multilingual", "cross-lingual", "milco")),
        *([f"license: {licence}"] if licence else []),
        "---",
    ]
    return (
        "\n".join(front)
        + f"""

# {config.name}

A multilingual learned sparse encoder in the [Polylex](https://pypi.org/project/polylex/) format: a text in any of its
languages becomes weights of {config.pivot_size:,} English terms (`e_...`){_echoes(config)}.
{files}

```python
{_USE.get(files, _USE_TORCH)}
```

Weights: `{config.weights_id or "not yet fixed"}` (SHA-256 of the float weights).

{facts.strip()}
"""
    )


TORCH = "This folder holds the PyTorch weights."
ONNX = "This folder holds the graphs that run without PyTorch."

_USE_TORCH = """\
from polylex.model import SparseModel

model = SparseModel.from_pretrained("this-folder")
model.encode_query(["¿Quién puede casarse?"]).decode(model.vocab, top_k=5)"""

_USE = {
    ONNX: """\
import polylex

encoder = polylex.load("this-folder")
encoder.encode_query(["¿Quién puede casarse?"]).decode(encoder.vocab, top_k=5)""",
}


def _echoes(config: ModelConfig) -> str:
    return "" if config.echo_placement == "none" else " and of its own tokens (`m_...`)"
