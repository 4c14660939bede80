"""How loud each column of a linear layer's input gets: what row-wise int8 needs to know before it can be fine."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polylex.model.model import SparseModel

# A few columns of a transformer's hidden states are many times louder than the rest in any text of any language, so a
# handful of sentences finds them: queries, prose, numbers, and the main scripts.
SENTENCES = (
    "All human beings are born free and equal in dignity and rights.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由である。",
    "모든 인간은 태어날 때부터 자유롭다.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्य जन्म से स्वतंत्र हैं।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระ",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι.",
    "Watu wote wamezaliwa huru.",
    "What is the capital of France?",
    "wer hat 1876 das telefon erfunden",
    "pip install 3.14 https://example.org/?q=a&b=2",
    "42",
)


def loudness(model: SparseModel) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude [K] of every input column of each linear layer over SENTENCES, by the layer's name."""
    peaks: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            columns = inputs[0].detach().float().abs().flatten(0, -2).amax(dim=0)
            peaks[name] = torch.maximum(peaks[name], columns) if name in peaks else columns

        return layers[name].register_forward_pre_hook(record)

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    handles = [watch(name) for name in layers]
    try:
        # One text at a time: padding would be measured too.
        model.encode(SENTENCES, batch_size=1, max_windows=1)
    finally:
        for handle in handles:
            handle.remove()
    return {name: columns.cpu().numpy() for name, columns in peaks.items()}


def shares(loudness: NDArray[np.float32], extra: int) -> NDArray[np.int64]:
    """Into how many equal shares [K] to split each column, `extra` columns more in all.

    The loudest share is then as quiet as can be (outlier channel splitting, arXiv:1901.09504).
    """
    counts = np.ones(len(loudness), np.int64)
    for _ in range(extra):
        counts[np.argmax(loudness / counts)] += 1
    return counts
