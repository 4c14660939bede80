"""PlacedEncoder: a PyTorch model on a device, as an Encoder for many texts.

encoder = polylex.models.load_on("my-model", "cuda")
encoder.encode(texts, kind="document")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from polylex.errors import BadInput
from polylex.model.model import SparseModel
from polylex.runtime.tokens import Kind, Window
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab


class PlacedEncoder:
    """What `polylex.runtime.Encoder` has for encoding. Texts are encoded in batches, those of like length together.

    A vector may differ in its last digits with the texts beside it, as on any GPU.

    source, name, weights_id  as of an Encoder
    device                    torch.device
    """

    def __init__(self, model: str | os.PathLike[str], device: str, *, batch_size: int = 32) -> None:
        """Open a folder or hub id. Raises BadInput for a device that is not there, BadModel, ModelNotFound."""
        self.device = _placed(device)
        self._model = SparseModel.from_pretrained(model).to(self.device)
        self._batch_size = batch_size
        self.source = str(Path(model).resolve()) if Path(model).is_dir() else str(model)
        self.name = self._model.name
        self.weights_id = self._model.weights_id

    @property
    def vocab(self) -> Vocab:
        """The term space of the vectors."""
        return self._model.vocab

    @property
    def device_name(self) -> str:
        """The device, for people."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)

    def windows(self, texts: Sequence[str], *, kind: Kind = "document") -> list[list[Window]]:
        """The windows of each text as the model gets them."""
        return self._model.windows(texts, kind=kind)

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "document", on_text: Callable[[int], None] | None = None
    ) -> SparseVectors:
        """One row a text, in order; as SparseModel.encode."""
        return self._model.encode(texts, kind=kind, batch_size=self._batch_size, on_text=on_text)


def _placed(name: str) -> torch.device:
    """A device that is there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        here = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["no GPU"]
        raise BadInput(
            f"the device {name!r} cannot be used ({str(fault).splitlines()[0]}); PyTorch {torch.__version__} sees "
            f"{', '.join(here)} and the cpu"
        ) from None
    return device
