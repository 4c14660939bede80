"""The PyTorch model: architecture, checkpoints, export. Needs the extra `polylex[model]`."""

from __future__ import annotations

from polylex.errors import MissingExtra

try:
    import onnx  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as fault:
    raise MissingExtra(fault.name or "torch", "model", "The PyTorch model") from None

from polylex.model.export import export
from polylex.model.model import SparseModel
from polylex.model.views import Views

__all__ = ["SparseModel", "Views", "export"]
