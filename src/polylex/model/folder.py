"""A model folder on disk: written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polylex.errors import BadInput, StorageFull


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; put it in place of `folder` when the block ends well, else leave `folder` alone.

    Raises BadInput when something other than a model stands there, StorageFull when the disk is full.
    """
    if folder.exists() and not _is_model(folder):
        raise BadInput(f"{folder} exists and is not a model folder; name a new folder, nothing was written")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            os.replace(folder, scratch / "old")
        os.replace(fresh, folder)
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left for {folder}; what stood there is untouched. Free some, try again."
            ) from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and (not any(folder.iterdir()) or (folder / "config.json").is_file())
