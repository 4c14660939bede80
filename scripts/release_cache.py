"""Tokenise the release data, and pack it into parts that travel.

    python scripts/release_cache.py RELEASE_FOLDER START_FOLDER OUT [--part-mib 46] [--also FILE ...]

RELEASE_FOLDER  of scripts/release_data.py        START_FOLDER  of scripts/release_start.py
OUT             gets cache/pairs and cache/groups (token caches, see docs/training.md), each with the English
                counterparts of its texts in the English teachers' tokens, and parts/align/part-00 ...,
                parts/distill/part-00 ...: tars of what each stage needs, cut into pieces

Token ids are packed by xz as numbers of four bytes; a sentence that stands in many rows costs a few bytes each.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import tarfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from polylex.runtime.tokens import Tokens
from polylex.train.data import Groups, Pairs, TokenCache, Tokenization, read_groups, read_pairs

LONGEST = 254  # tokens of a text that a model of 256 reads
_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 5, "dict_size": 96 << 20, "lc": 0, "lp": 2, "pb": 2}]
_TRAVELS = ("*.tokens", "*.rows")
_OF_ALIGN = ("cache/pairs/*", "start/start.npz", "start/splade", "start/tokenizer.json")


class Cut(Tokenization):
    """A tokenisation that keeps only as many tokens as a model reads."""

    def __call__(self, texts: list[str]) -> list[list[int]]:  # type: ignore[override]
        """Token ids of each text, at most LONGEST."""
        return [ids[:LONGEST] for ids in super().__call__(texts)]


def counterparts(path: Path) -> dict[str, str]:
    """Text -> its English counterpart, itself where it is English."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return {text: english or text for text, english in map(json.loads, lines)}


def write_caches(release: Path, start: Path, out: Path) -> None:
    """Write cache/pairs and cache/groups."""
    student, english = Cut(Tokens.read(start)), Cut(Tokens.read(start / "splade"))
    pairs, groups = out / "cache" / "pairs", out / "cache" / "groups"
    Pairs.write(pairs, read_pairs(release / "pairs.jsonl.gz"), student, teacher=english)
    Groups.write(groups, read_groups(release / "groups.jsonl.gz"), query=student, document=student)
    of = counterparts(release / "english.jsonl.gz")
    for name in ("queries", "documents"):
        texts = (of.get(text, "") for text in Groups.texts(groups, name))
        TokenCache.write(groups / f"{name}.english.tokens", texts, english)


def packed(path: Path) -> Path:
    """The file packed by xz, made if need be."""
    target = path.with_name(path.name + ".xz")
    if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
        target.write_bytes(lzma.compress(path.read_bytes(), format=lzma.FORMAT_XZ, filters=_XZ))
    return target


def write_parts(out: Path, start: Path, also: list[Path], part_bytes: int) -> list[Path]:
    """Tar what each stage needs, so that the first can begin while the second's still travels; and cut the tars."""
    caches = sorted(path for pattern in _TRAVELS for path in (out / "cache").rglob(pattern))
    with ThreadPoolExecutor(2) as pool:
        files = {str(path.relative_to(out)): path for path in pool.map(packed, caches)}
    files |= {f"start/{path.name}": path for path in start.iterdir()} | {path.name: path for path in also}
    parts = []
    for stage in ("align", "distill"):
        whole = out / f"{stage}.tar"
        with tarfile.open(whole, "w") as tar:
            for name, path in sorted(files.items()):
                if (stage == "align") == any(fnmatch(name, pattern) for pattern in _OF_ALIGN):
                    tar.add(path, name)
        parts += cut(whole, out / "parts" / stage, part_bytes)
    return parts


def cut(whole: Path, folder: Path, part_bytes: int) -> list[Path]:
    """Cut a file into folder/part-00, part-01, ...; folder/COMPLETE says that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    parts = []
    with whole.open("rb") as stream:
        while block := stream.read(part_bytes):
            parts.append(folder / f"part-{len(parts):02d}")
            parts[-1].write_bytes(block)
    (folder / "COMPLETE").touch()
    whole.unlink()
    return parts


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("release", "start", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--part-mib", type=float, default=46)
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if not (options.out / "cache" / "groups" / "documents.english.tokens").exists():
        write_caches(options.release, options.start, options.out)
    parts = write_parts(
        options.out, options.start, [*options.also, options.release / "dev"], int(options.part_mib * 2**20)
    )
    for path in sorted((options.out / "cache").rglob("*.xz")):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.relative_to(options.out)}")
    print(f"{len(parts)} parts, {sum(part.stat().st_size for part in parts) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
