"""Average the weights of models that come from one start: python scripts/release_soup.py OUT MODEL MODEL ..."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from polylex.model import SparseModel


def main() -> None:
    """Read, average, write."""
    out, *folders = map(Path, sys.argv[1:])
    models = [SparseModel.from_pretrained(folder) for folder in folders]
    states = [model.state_dict() for model in models]
    models[0].load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    models[0].save_pretrained(out)


if __name__ == "__main__":
    main()
