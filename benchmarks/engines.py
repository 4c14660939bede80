"""Search engines for sparse vectors behind one interface: ours, two that anyone writes in an hour, two that people use.

An engine is built from parts of a collection, in a process of its own, and then opened beside the others. Ids are rows.
Filters are asked for as "documents whose number is below n": numbers, 0 to 999, come with the documents.
"""

# ruff: noqa: D102 - methods are described where Engine declares them

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import search
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.index import Index
from polylex.kernels import Allowed
from polylex.postings import Precision
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

NUMBERS = 1000  # of documents, for filters
Part = tuple[SparseVectors, NDArray[np.int64]]  # vectors, and the number of each document
Rows = NDArray[np.int64]


class Engine(ABC):
    """One engine in one folder."""

    name = ""
    exact = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def build(self, parts: Iterator[Part], vocab: Vocab) -> None:
        """Take all documents, so that they are on disk when it returns."""

    @abstractmethod
    def open(self) -> None:
        """Get ready to search."""

    @abstractmethod
    def top(self, query: SparseVectors, k: int) -> Rows:
        """Rows of the k best documents, best first."""

    def filtered(self, below: int) -> Callable[[SparseVectors, int], Rows] | None:
        """The same among documents whose number is below `below`; None where there are no filters."""
        return None

    def close(self) -> None:
        """Let go of memory."""
        self.__dict__ = {"folder": self.folder}


class Polylex(Engine):
    """Ours, from one index a precision."""

    name = "polylex f32"
    precision: Precision = "f32"
    threads = 1

    def build(self, parts: Iterator[Part], vocab: Vocab) -> None:
        with IndexBuilder(self.folder / "index", vocab, precision=self.precision) as builder:
            numbers = []
            for vectors, some in parts:
                first = len(builder)
                builder.add([f"d{row}" for row in range(first, first + len(vectors))], None, vectors)
                numbers.append(some)
            builder.finish()
        np.save(self.folder / "numbers.npy", np.concatenate(numbers))

    def open(self) -> None:
        self.index = Index.open(self.folder / "index")

    def top(self, query: SparseVectors, k: int) -> Rows:
        return self.index.top(query, k, threads=self.threads)[0][0]

    def filtered(self, below: int) -> Callable[[SparseVectors, int], Rows]:
        numbers = np.load(self.folder / "numbers.npy")
        allowed: Allowed = [
            np.packbits(numbers[start : start + 65_536] < below, bitorder="little")
            for start in range(0, len(numbers), 65_536)
        ]
        return lambda query, k: self.index.top(query, k, allowed=allowed)[0][0]

    def close(self) -> None:
        self.index.close()


class PolylexHalf(Polylex):
    """Weights of 16 bits."""

    name = "polylex u16"
    precision: Precision = "u16"
    exact = False


class PolylexBytes(Polylex):
    """Weights of 8 bits."""

    name = "polylex u8"
    precision: Precision = "u8"
    exact = False


class _Matrix(Engine):
    """What needs a matrix in memory; the build is what makes it from the parts."""

    def build(self, parts: Iterator[Part], vocab: Vocab) -> None:
        vectors = SparseVectors.concat([part for part, _ in parts])
        shape = (len(vectors), len(vocab))
        matrix = sp.csr_array((vectors.weights, vectors.terms.astype(np.int32), vectors.indptr), shape=shape)
        for name, array in self.arrays(matrix).items():
            np.save(self.folder / f"{name}.npy", array)

    def arrays(self, matrix: sp.csr_array) -> dict[str, NDArray[Any]]:
        """What goes to disk."""
        return {
            "data": matrix.data,
            "indices": matrix.indices,
            "indptr": matrix.indptr,
            "shape": np.array(matrix.shape),
        }

    def load(self, name: str) -> NDArray[Any]:
        """One array, mapped."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array


class Naive(_Matrix):
    """Term at a time over one inverted file, one score a document, a heap of k."""

    name = "naive, heap"

    def arrays(self, matrix: sp.csr_array) -> dict[str, NDArray[Any]]:
        return super().arrays(matrix.tocsc()) | {"shape": np.array(matrix.shape)}

    def open(self) -> None:
        self.parts = self.load("indptr").astype(np.int64), self.load("indices"), self.load("data")
        self.documents = int(self.load("shape")[0])

    def select(self, scores: NDArray[np.float32], k: int) -> Rows:
        """The k highest, best first."""
        return search.heaped(scores, k)[0][0]

    def top(self, query: SparseVectors, k: int) -> Rows:
        scores = np.zeros(self.documents, np.float32)
        search._add(scores, *self.parts, query.terms, query.weights)
        return self.select(scores, k)


class NaivePartition(Naive):
    """The same with numpy's argpartition in place of the heap; reads the files of `Naive`."""

    name = "naive, partition"

    def select(self, scores: NDArray[np.float32], k: int) -> Rows:
        return search.partitioned(scores, k)[0][0]


class Scipy(_Matrix):
    """Matrix times vector, then argpartition."""

    name = "scipy"

    def open(self) -> None:
        parts = self.load("data"), self.load("indices"), self.load("indptr")
        self.matrix = sp.csr_array(parts, shape=tuple(self.load("shape").tolist()))

    def top(self, query: SparseVectors, k: int) -> Rows:
        dense = np.zeros(self.matrix.shape[1], np.float32)
        dense[query.terms] = query.weights
        return search.partitioned(self.matrix @ dense, k)[0][0]


class Qdrant(Engine):
    """qdrant-edge: Qdrant in the process, its sparse index in memory, one thread, all segments merged."""

    name = "qdrant-edge"
    _BATCH = 1000

    def build(self, parts: Iterator[Part], vocab: Vocab) -> None:
        import qdrant_edge as qe

        path = self.folder / "shard"
        path.mkdir()
        config = qe.EdgeConfig(
            sparse_vectors={"terms": qe.EdgeSparseVectorParams()},
            optimizers=qe.EdgeOptimizersConfig(default_segment_number=1),
            max_search_threads=1,
        )
        shard, row = qe.EdgeShard.create(str(path), config), 0
        for vectors, numbers in parts:
            for start in range(0, len(vectors), self._BATCH):
                points = []
                for at in range(start, min(start + self._BATCH, len(vectors))):
                    terms, weights = vectors.row(at)
                    vector = qe.SparseVector(terms.tolist(), weights.tolist())
                    points.append(qe.Point(row, {"terms": vector}, {"number": int(numbers[at])}))
                    row += 1
                shard.update(qe.UpdateOperation.upsert_points(points))
        shard.update(qe.UpdateOperation.create_field_index("number", qe.PayloadSchemaType.Integer))
        while shard.optimize():
            pass
        shard.flush()
        shard.close()

    def open(self) -> None:
        import qdrant_edge as qe

        self.shard = qe.EdgeShard.load(str(self.folder / "shard"))

    def _top(self, query: SparseVectors, k: int, condition: Any) -> Rows:
        import qdrant_edge as qe

        vector = qe.SparseVector(query.terms.tolist(), query.weights.tolist())
        request = qe.SearchRequest(query=qe.Query.Nearest(vector, using="terms"), limit=k, filter=condition)
        return np.array([point.id for point in self.shard.search(request)], np.int64)

    def top(self, query: SparseVectors, k: int) -> Rows:
        return self._top(query, k, None)

    def filtered(self, below: int) -> Callable[[SparseVectors, int], Rows]:
        import qdrant_edge as qe

        numbers = qe.FieldCondition(key="number", range=qe.RangeFloat(lt=float(below)))
        condition = qe.Filter(must=[numbers])
        return lambda query, k: self._top(query, k, condition)

    def close(self) -> None:
        self.shard.close()


class Seismic(Engine):
    """Seismic for many dimensions (SeismicIndexLV): approximate. Settings tuned for recall at 100k documents."""

    name = "seismic"
    exact = False
    query_cut, heap_factor = 12, 0.8

    def build(self, parts: Iterator[Part], vocab: Vocab) -> None:
        import seismic

        dataset, token, row, postings = seismic.SeismicDatasetLV(), seismic.get_seismic_string(), 0, 0
        for vectors, _ in parts:
            for at in range(len(vectors)):
                terms, weights = vectors.row(at)
                dataset.add_document(str(row), terms.astype(token), weights)
                row += 1
            postings += vectors.nnz
        # n_postings is a mean over all lists: the default never binds where there are so many of them.
        mean = max(postings // len(vocab), 1)
        index = seismic.SeismicIndexLV.build_from_dataset(
            dataset, n_postings=max(mean // 2, 1), max_fraction=4.0, num_threads=1
        )
        index.save(str(self.folder / "seismic"))

    def open(self) -> None:
        import seismic

        (file,) = self.folder.glob("seismic*")
        self.index, self.token = seismic.SeismicIndexLV.load(str(file)), seismic.get_seismic_string()

    def top(self, query: SparseVectors, k: int) -> Rows:
        names = query.terms.astype(self.token)
        found = self.index.search("q", names, query.weights, k, self.query_cut, self.heap_factor)
        return np.array([int(document) for _, _, document in found], np.int64)


class SeismicCareful(Seismic):
    """The same files, searched more widely."""

    name = "seismic, careful"
    query_cut, heap_factor = 30, 0.7


# Engines that read another one's files: what they need besides is nothing.
SHARED: dict[type[Engine], type[Engine]] = {NaivePartition: Naive, SeismicCareful: Seismic}
OURS: Sequence[type[Engine]] = (Polylex, PolylexHalf, PolylexBytes)
OTHERS: Sequence[type[Engine]] = (Naive, NaivePartition, Scipy, Qdrant, Seismic, SeismicCareful)
NEEDS = {Qdrant: "qdrant_edge", Seismic: "seismic", SeismicCareful: "seismic"}
BY_NAME = {engine.name: engine for engine in (*OURS, *OTHERS)}


def installed(engine: type[Engine]) -> bool:
    """Whether its package is there."""
    return engine not in NEEDS or find_spec(NEEDS[engine]) is not None
