"""One process at a time in a folder that is written to."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neft_zoo.errors import NoiseError

if sys.platform != "win32":
    import fcntl

FILE = ".neft-zoo.lock"


@contextmanager
def locked(option: str, folder: Path, name: str = FILE) -> Iterator[None]:
    """Make a folder and hold it, so that no other process of ours writes to it inside the block.

    The operating system lets go of it when the process ends, however that happens. Of several processes of one run
    the first holds it for all. A folder that is still empty at the end is removed, with those that were made for it.

    Args:
        option: the argument that named it, for messages.
        folder: need not exist.
        name: of the lock's file, where a run writes only one file of a folder.

    Raises:
        NoiseError: if another process holds it, or it cannot be made.
    """
    if os.environ.get("RANK", "0") != "0" or sys.platform == "win32":  # which has no fcntl
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    file = _hold(option, folder, folder / name)
    try:
        yield
    finally:
        _remove(folder / name)
        os.close(file)
        for path in made:
            _remove(path)


def _hold(option: str, folder: Path, path: Path) -> int:
    """Return the descriptor of the lock's file: closing it lets go."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            message = f"{option} must be a folder that can be written to, got {folder}: {error.strerror}."
            raise NoiseError(message) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file between the two lines above.
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
        except BlockingIOError:
            who = os.read(file, 300).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise NoiseError(
                f"{option} must be a folder that no other run writes to, got {folder}, which {who} is writing to."
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # a full disk, or a file system without locks: nothing can be said about others
            return file
        os.close(file)


def _remove(path: Path) -> None:
    """Remove a file or an empty folder, if that can be done."""
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        pass
