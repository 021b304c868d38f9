"""Writing files whole or not at all, in folders that one process at a time writes to."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from neft_zoo.errors import NoiseError, one_line
from neft_zoo.redaction import redact

if sys.platform != "win32":
    import fcntl

LOCK = ".neft-zoo.lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that takes the place of `path` once the block ends without an error.

    Raises:
        NoiseError: if the file cannot be written, as on a full or read-only disk; `path` is then as it was.
    """
    # In the same folder, since a rename is atomic inside a file system only, and by process: ranks may write at once.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be written: {error.strerror or one_line(error)}.") from error
    finally:
        # Where the disk is read-only there is nothing to remove, and the first error is the one to tell.
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        NoiseError: if it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 2, *, is_data: bool = False) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path: of the file.
        value: JSON values.
        indent: spaces a level.
        is_data: whether it holds texts of a data set or a model, which stay as they are; all else is redacted.

    Raises:
        NoiseError: if it cannot be written, and for NaN and infinity, which JSON does not have.
    """
    value = value if is_data else redact(value)
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NoiseError(f"{path} must hold finite numbers: {one_line(error)}.") from error
    write_text(path, text + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file of results that come one by one; it is on disk when this returns.

    Raises:
        NoiseError: if it cannot be written; the lines before it stay, so that the same command goes on from them.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        kept = "what is in it is kept, and the same command goes on from there"
        raise NoiseError(f"{path} must be a file that can be written: {error.strerror}; {kept}.") from None


def make_folder(path: Path) -> Path:
    """Make a folder and those above it where they are missing, and return its path.

    Raises:
        NoiseError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoiseError(f"{path} must be a folder that can be made: {error.strerror}.") from None
    return path


def check_folder(option: str, path: Path) -> None:
    """Raise unless files can be written in a folder, or in the folder that it would be made in; nothing is left.

    Args:
        option: the argument that named the path, for the message.
        path: a folder, which need not exist.

    Raises:
        NoiseError: if they cannot, as on a read-only disk or where `path` is a file.
    """
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise NoiseError(f"{option} must be a folder, got {path}.")
    try:
        _try_out(existing / f".{os.getpid()}.trial")
    except OSError as error:
        raise NoiseError(f"{option} must be a folder that can be written to, got {path}: {error.strerror}.") from None


def check_output(option: str, path: Path) -> None:
    """Raise unless a file can be written at `path`; called before anything is computed.

    Args:
        option: the argument that named the path, for the message.
        path: a file, which need not exist, in an existing folder.

    Raises:
        NoiseError: if the folder is missing or not writable, or `path` is a folder.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise NoiseError(f"{option} must be a file in an existing folder, got {path}.")
    try:
        _try_out(path.with_name(f".{path.name}.{os.getpid()}.trial"))
    except OSError as error:
        raise NoiseError(f"{option} must be a file that can be written, got {path}: {error.strerror}.") from None


@contextmanager
def locked(option: str, folder: Path, name: str = LOCK) -> Iterator[None]:
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
        file.close()
        for path in made:
            _remove(path)


def _hold(option: str, folder: Path, path: Path) -> TextIO:
    """Return the lock's open file: closing it lets go."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")
        except OSError as error:
            message = f"{option} must be a folder that can be written to, got {folder}: {error.strerror}."
            raise NoiseError(message) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file between the two lines above.
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            raise NoiseError(
                f"{option} must be a folder that no other run writes to, got {folder}, which {who} is writing to."
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks: nothing can be said about others
            return file
        file.close()


def _remove(path: Path) -> None:
    """Remove a file or an empty folder, if that can be done."""
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        pass


def _try_out(trial: Path) -> None:
    """Raise what the system raises at writing a file, which is not left; a full disk still makes empty ones."""
    try:
        trial.write_text("trial")
    finally:
        _remove(trial)
