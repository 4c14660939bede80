"""Ray Data: encode a data set on all machines of a Ray cluster, one model a worker.

    dataset = encode(ray.data.read_json("s3://bucket/articles/"), workers=8, device="cuda", model="my/model")
    dataset.write_parquet("s3://bucket/vectors/")

Ray sends the batches of a worker that died to another one; each row comes out once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from polylex.errors import MissingExtra
from polylex.interop.arrow import ArrowEncoder
from polylex.models import DEFAULT
from polylex.prune import Pruning

if TYPE_CHECKING:
    from ray.data import Dataset


def encode(
    dataset: Dataset,
    model: str = DEFAULT,
    *,
    text: str = "text",
    kind: Literal["query", "document"] = "document",
    workers: int = 1,
    device: str | None = None,
    prune: Pruning | None = None,
    **options: Any,  # noqa: ANN401
) -> Dataset:
    """The data set with two more columns, as ArrowEncoder makes them. Lazy, as all of Ray Data.

    model    must be the same on every machine: a bundled name, a hub id, or a folder that all of them have
    workers  processes that each hold a model
    device   "cuda" gives each worker a GPU of its own; None a CPU core: more with num_cpus=..., which is the threads
    options  go to Dataset.map_batches: batch_size (default 512), num_cpus, num_gpus, ...

    The order of the rows is Ray's, so the data set should have a column with ids. Raises MissingExtra.
    """
    try:
        from ray.data import ActorPoolStrategy
    except ImportError:
        raise MissingExtra("ray", "ray", "Ray Data") from None
    cores = options.get("num_cpus", 1)
    settings = {
        "model": model,
        "text": text,
        "kind": kind,
        "device": device,
        "threads": None if device else max(1, int(cores)),
        "prune": prune,
    }
    resources = {"num_gpus": 1} if device else {"num_cpus": cores}
    return dataset.map_batches(
        ArrowEncoder,
        fn_constructor_kwargs=settings,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        **{"batch_size": 512, **resources, **options},
    )
