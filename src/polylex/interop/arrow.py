"""ArrowEncoder: tables of Apache Arrow get the columns `terms` and `weights`. For engines that pass tables around.

encoder = ArrowEncoder("polylex-mini", text="body")
table = encoder(table)                       # or give the class to a pool of workers: it opens the model where it works
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np

from polylex.errors import BadInput
from polylex.models import DEFAULT, load, load_on
from polylex.prune import Pruning

VOCAB = b"polylex.vocab"


class ArrowEncoder:
    """Encodes one column. Can be pickled: the model is opened at the first table, in the process that has it."""

    def __init__(
        self,
        model: str = DEFAULT,
        *,
        text: str = "text",
        kind: Literal["query", "document"] = "document",
        device: str | None = None,
        threads: int | None = None,
        prune: Pruning | None = None,
    ) -> None:
        """Take the settings.

        model    bundled name, folder or hub id; with `device` one in PyTorch's layout
        text     the column to encode, of strings; null is the empty text
        device   such as "cuda"; None for ONNX Runtime on the CPU
        threads  texts encoded at one time on the CPU
        """
        self.model, self.text, self.kind, self.device = model, text, kind, device
        self.threads, self.prune = threads, prune

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "encoder"}

    @cached_property
    def encoder(self) -> Any:  # noqa: ANN401 - an Encoder, on the CPU or elsewhere
        """The model."""
        return load_on(self.model, self.device) if self.device else load(self.model, threads=self.threads)

    def __call__(self, table: Any) -> Any:  # noqa: ANN401 - pyarrow is optional
        """The table with two more columns: terms (list of uint32) and weights (list of float32).

        The fingerprint of the vocabulary is in the schema's metadata `polylex.vocab`. Raises BadInput where the column
        is not there or holds no strings, or one of the two is there already.
        """
        import pyarrow

        names = table.column_names
        if self.text not in names or {"terms", "weights"} & set(names):
            raise BadInput(
                f"expected a column {self.text!r}, and none called terms or weights; got {', '.join(names) or 'none'}"
            )
        texts = table[self.text].to_pylist()
        if not all(text is None or isinstance(text, str) for text in texts):
            raise BadInput(f"the column {self.text!r} holds {table.schema.field(self.text).type}, not strings")
        vectors = self.encoder.encode([text or "" for text in texts], kind=self.kind)
        if self.prune:
            vectors = self.prune(vectors)
        ends = pyarrow.array(vectors.indptr.astype(np.int32))
        for name, values in (("terms", vectors.terms), ("weights", vectors.weights)):
            table = table.append_column(name, pyarrow.ListArray.from_arrays(ends, pyarrow.array(values)))
        return table.replace_schema_metadata({**(table.schema.metadata or {}), VOCAB: vectors.vocab})
