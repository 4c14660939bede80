"""Dense vectors of all queries and documents of the release run, from two teachers, for in-batch distillation.

    python scripts/release_teach.py FOLDER [--device cuda] [--batch-tokens 65536]

FOLDER  of scripts/release_unpack.py; cache/groups gets queries.npy and documents.npy

A row holds both teachers side by side: e5 (384) weighs 1, mpnet (768) weighs `MPNET`; inner products over a temperature
of 0.02 are then the sum of both teachers' logits. Where a text has an English counterpart, mpnet reads that: what it
says does not depend on the text's language. Without one, mpnet's part is 0: to mpnet the document is like any random
one. e5 says nothing of queries made of parallel text (mpnet knows better), and reads all others as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from convert_mini import mini_config, read_state
from numpy.typing import NDArray
from release_start import WORDS, read_packed
from torch import nn
from transformers import AutoConfig, AutoModel

from polylex.errors import BadInput
from polylex.runtime.tokens import Tokens
from polylex.storage import map_arrays, write_arrays
from polylex.text import Preparation
from polylex.train.batches import Frame, Texts
from polylex.train.data import Groups, TokenCache
from polylex.train.teachers import MeanPooling, mean_vectors

# cosine / 0.02 for e5, cosine / 0.06 for mpnet.
MPNET = 0.02 / 0.06
# mpnet's vocabulary is BERT's behind four tokens of its own; texts stand between <s> and </s>.
SHIFT, MPNET_FRAME = 4, Frame((0,), (2,), 1)
BLOCK = 1 << 16
NEGATIVES, CANDIDATES, POOL = 4, 32, 200_000


def e5(start: Path) -> nn.Module:
    """The dense backbone, with the embeddings of the starting model."""
    state = read_state(start / "start.npz")
    config = dict(mini_config(state).encoder)
    model = AutoModel.from_config(AutoConfig.for_model(**config))
    model.pooler = None
    tensors = {name: torch.from_numpy(array) for name, array in read_packed(start / "e5.npz").items()}
    tensors[WORDS] = state[f"encoder.transformer.{WORDS}"]
    model.load_state_dict(tensors)
    return model


def mpnet(start: Path) -> nn.Module:
    """The English bi-encoder."""
    settings = json.loads((start / "mpnet.json").read_text(encoding="utf-8"))
    model = AutoModel.from_config(AutoConfig.for_model(**settings))
    model.pooler = None
    model.load_state_dict({name: torch.from_numpy(array) for name, array in read_packed(start / "mpnet.npz").items()})
    return model


def embed(
    body: MeanPooling, cache: TokenCache, rows: NDArray[np.int64], frame: Frame, shift: int, batch_tokens: int
) -> NDArray[np.float16]:
    """Vectors of some texts of a cache."""
    parts = []
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        lengths = cache.offsets[some + 1] - cache.offsets[some]
        index = np.repeat(cache.offsets[some] - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        parts.append(mean_vectors(body, Texts(cache.ids[index] + np.uint32(shift), lengths), frame, batch_tokens))
    return np.concatenate(parts).astype(np.float16)


@torch.inference_mode()
def mine(groups: Groups, rows: NDArray[np.int64], device: str, seed: int = 0) -> NDArray[np.int64]:
    """Documents [rows, NEGATIVES] near each row's query, drawn from the CANDIDATES nearest of POOL documents.

    A document with more than 0.9 of the cosine of the right one is left out: likely the same in other words.
    """
    assert groups.query_vectors is not None and groups.document_vectors is not None
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.asarray(groups.document_vectors[:, 384]) != 0)
    pool = np.sort(rng.permutation(known)[:POOL])
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    documents = torch.from_numpy(np.asarray(groups.document_vectors[pool, 384:])).to(device, kind)
    found = np.zeros((len(rows), NEGATIVES), np.int64)
    for start in range(0, len(rows), 1024):
        some = rows[start : start + 1024]
        queries = torch.from_numpy(np.asarray(groups.query_vectors[groups.query[some], 384:])).to(device, kind)
        right = groups.positives[groups.positive_indptr[some]]
        answers = torch.from_numpy(np.asarray(groups.document_vectors[right, 384:])).to(device, kind)
        cosines = queries @ documents.T
        limit = 0.9 * (queries * answers).sum(dim=1, keepdim=True)
        nearest = (
            cosines.masked_fill_(cosines > limit, -1).topk(min(CANDIDATES, len(pool)), dim=1).indices.cpu().numpy()
        )
        drawn = rng.permuted(np.tile(np.arange(nearest.shape[1]), (len(some), 1)), axis=1)[:, :NEGATIVES]
        found[start : start + 1024] = pool[np.take_along_axis(nearest, drawn, axis=1)]
    return found


def with_negatives(folder: Path, rows: NDArray[np.int64], mined: NDArray[np.int64]) -> None:
    """Give these rows of groups.rows, which have no negatives, the mined ones."""
    path = folder / "groups.rows"
    mapped, metadata = map_arrays(path, BadInput)
    arrays = {name: np.array(array) for name, array in mapped.items()}
    lengths = np.diff(arrays["negative_indptr"])
    assert not lengths[rows].any()
    owner = np.concatenate([np.repeat(np.arange(len(lengths)), lengths), np.repeat(rows, mined.shape[1])])
    order = np.argsort(owner, kind="stable")
    arrays["negatives"] = np.concatenate([arrays["negatives"], mined.ravel().astype(np.uint32)])[order]
    arrays["negative_scores"] = np.concatenate([arrays["negative_scores"], np.full(mined.size, np.nan, np.float32)])[
        order
    ]
    lengths[rows] = mined.shape[1]
    arrays["negative_indptr"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    write_arrays(folder, lambda _: path.name, arrays, metadata)


def main() -> None:
    """Read the command line, embed, mine, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-tokens", type=int, default=65536)
    options = parser.parse_args()
    start, folder = options.folder / "start", options.folder / "cache" / "groups"
    tokens = Tokens.read(start)
    bodies = [MeanPooling(made(start)).to(options.device).eval() for made in (e5, mpnet)]
    head, tail = tokens.frame
    pad = 1
    groups = Groups.open(folder)
    parallel = np.array([source.startswith(("sentence", "passage")) for _, source in groups.strata])[groups.stratum]
    untold = np.zeros(len(groups.queries), bool)
    untold[groups.query[parallel]] = True
    untold[groups.query[~parallel]] = False
    for name, prompt in (("queries", "query:"), ("documents", "passage:")):
        began = time.monotonic()
        own, english = TokenCache.open(folder / f"{name}.tokens"), TokenCache.open(folder / f"{name}.english.tokens")
        told = np.flatnonzero(~untold) if name == "queries" else np.arange(len(own))
        translated = np.flatnonzero(english.lengths > 0)
        frame = Frame((*head, *tokens.content([prompt], Preparation())[0]), tuple(tail), pad)
        vectors = np.zeros((len(own), 384 + 768), np.float16)
        vectors[told, :384] = embed(bodies[0], own, told, frame, 0, options.batch_tokens)
        middle = time.monotonic()
        found = embed(bodies[1], english, translated, MPNET_FRAME, SHIFT, options.batch_tokens)
        vectors[translated, 384:] = found * np.float16(MPNET**0.5)
        np.save(folder / f"{name}.npy", vectors)
        print(f"{name}: {len(told):,} by e5 in {middle - began:.1f} s, {len(translated):,} by mpnet in "
              f"{time.monotonic() - middle:.1f} s", flush=True)  # fmt: skip
    began, rows = time.monotonic(), np.flatnonzero(parallel)
    with_negatives(folder, rows, mine(Groups.open(folder), rows, options.device))
    print(f"{NEGATIVES} negatives for {len(rows):,} groups in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
