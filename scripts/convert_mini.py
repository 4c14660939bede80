"""Turn the weights of a training run (weights.npz + tokenizer.json) into a PyTorch folder and the bundled model.

    python scripts/convert_mini.py RUN_FOLDER TORCH_FOLDER [--out src/polylex/assets/polylex-mini]

weights.npz holds int8 matrices with one float16 scale a row (`name::s`) and float16 vectors: `enc.*` (BERT encoder),
`projector`, `transform`, `ln`, `decoder`, `echo`, `scale`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from polylex.config import ModelConfig
from polylex.model import SparseModel, export
from polylex.model.card import ONNX, TORCH, model_card
from polylex.model.weights import fill, identity
from polylex.runtime.tokens import Tokens

BUNDLED = Path("src/polylex/assets/polylex-mini")
FACTS = """\
## Origin

* Backbone: [multilingual-e5-small](https://huggingface.co/intfloat/multilingual-e5-small) (MIT), dequantised from 4
  bits, its XLM-R vocabulary trimmed to 110,000 pieces.
* English head: starts from the word embeddings of
  [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (Apache-2.0), on the vocabulary
  of bert-base-uncased (Apache-2.0).
* Teachers: splade-tiny for the words (Apache-2.0 according to the package it came in; its upstream model is not
  proven), multilingual-e5-small (MIT) and all-mpnet-base-v2 (Apache-2.0) for relevance.

These upstream models were partly trained on MS MARCO, whose terms allow research use of the data: judge for
yourself what that means for your use.

## Training

Two H200s, 23 minutes, bf16, from the weights of a feasibility run of six minutes on one H100. Stage 1 (align):
898,000 parallel pairs in 191 languages, from software manuals, catalogues and package descriptions, public-domain
Bibles, TICO-19, the Universal Declaration of Human Rights and others, under free licences that differ by source.
Stage 2 (distill): 885,000 groups of a query and documents, of open reading-comprehension, FAQ and help pages, and
of translations. Rows that share a text or 50 characters with an evaluation set were dropped. Sources, languages and
licences: docs/release-data.md; recipes: `recipes/align-release.toml`, `distill-release.toml`,
`distill-release-b.toml`, whose weights are averaged. The bias of the English head was lowered by 0.15 afterwards
(`scripts/release_calibrate.py`).

## Figures

nDCG@10, all terms, exact scoring, by `benchmarks/quality.py` (all sets and settings: docs/benchmarks.md):

| set | BM25 | dense multilingual-e5-small | this model, int8 | 30 terms a document | terms a document |
|---|---|---|---|---|---|
| xquad-x-en (12 languages to English) | .318 | .861 | .701 | .653 | 94 |
| xquad-en-x-pooled (English to 12 languages) | .235 | .467 | .475 | .442 | 103 |
| xquadr-pooled (11 languages, sentences) | .191 | .357 | .347 | .335 | 71 |
| omosqa-pooled (5 languages) | .250 | .425 | .439 | .405 | 114 |
| afriqa-test-crosslingual (9 African languages to English and French) | .391 | .556 | .617 | .602 | 79 |
| mkqa-q2q-x-en (questions to English questions) | .360 | .911 | .760 | .755 | 50 |
| debfaq-x-en (FAQ to English) | .268 | .604 | .493 | .486 | 71 |
| mean of the first seven | .288 | .597 | .547 | .525 | 83 |
| scifact-en (English) | .680 | .660 | .541 | .493 | 96 |

## Known flaws

Across languages it is behind dense multilingual-e5-small on questions about single paragraphs and on short
questions (see the table), ahead of it on pooled collections. Short words that the trimmed vocabulary cuts into
pieces are misread (German "heiraten" is three pieces). A few terms stand in half of all texts (`e_to`,
`e_software`).
"""
INT8 = """
## int8

Matrices are int8 with a scale for each output, activations int8 with a scale for each token; the loudest input
columns are split.
"""
NAMES = {
    "enc.": "encoder.transformer.",
    "projector.": "connector.linear.",
    "transform.": "pivot_head.dense.",
    "ln.": "pivot_head.norm.",
    "decoder.": "pivot_head.decoder.",
    "echo.": "source_head.linear.",
    "scale": "source_head.scale",
}


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Float32 tensors of weights.npz under the model's names."""
    state = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            if name.endswith("::s"):
                continue
            prefix = next(old for old in NAMES if name.startswith(old))
            array: NDArray[np.float32] = arrays[name].astype(np.float32)
            if f"{name}::s" in arrays.files:
                array *= arrays[f"{name}::s"].astype(np.float32)[:, None]
            state[NAMES[prefix] + name[len(prefix) :]] = torch.from_numpy(array)
    return state


def mini_config(state: dict[str, torch.Tensor]) -> ModelConfig:
    """The configuration of polylex-mini; sizes are read off the tensors."""
    body = "encoder.transformer."
    vocab_size, width = state[f"{body}embeddings.word_embeddings.weight"].shape
    terms, pivot_width = state["pivot_head.decoder.weight"].shape
    layers = {name.split(".")[4] for name in state if name.startswith(f"{body}encoder.layer.")}
    encoder = {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // 32,
        "intermediate_size": len(state[f"{body}encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(state[f"{body}embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(state[f"{body}embeddings.token_type_embeddings.weight"]),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 1,
    }
    return ModelConfig(
        name="polylex-mini",
        encoder=encoder,
        pivot_size=terms,
        pivot_width=pivot_width,
        pivot_norm_eps=1e-5,
        pivot_speakers="all",
        source_speakers="content",
        max_length=512,
        stride=64,
    )


def main() -> None:
    """Convert, export, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder with weights.npz and tokenizer.json")
    parser.add_argument("torch", type=Path, help="PyTorch folder to write")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="exported folder to write")
    parser.add_argument("--shift", type=float, default=0.0, help="lower the English head's bias by so much")
    options = parser.parse_args()

    state = read_state(options.run / "weights.npz")
    state["pivot_head.decoder.bias"] -= options.shift  # scripts/release_calibrate.py chooses it
    model = SparseModel(mini_config(state), Tokens.read(options.run))
    fill(model, state, str(options.run))
    model.eval()
    config = replace(model.config, weights_id=identity(model))
    told = {"licence": "apache-2.0"}
    model.save_pretrained(options.torch, card=model_card(config, files=TORCH, facts=FACTS, **told))
    export(model, options.out, card=model_card(config, files=ONNX, facts=FACTS + INT8, **told))
    print(f"{config.name} {config.weights_id[:12]}: {options.torch}, {options.out}")


if __name__ == "__main__":
    main()
