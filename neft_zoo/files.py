"""Writing files atomically, in folders that only one process at a time writes to."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neft_zoo.errors import NoiseError, one_line
from neft_zoo.redaction import redact

if sys.platform != "win32":
    import fcntl

LOCK = ".neft-zoo.lock"
_HELD: set[int] = set()  # descriptors of lock files


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, and move it to `path` if the context ends without an error.

    Raises:
        NoiseError: if the file cannot be written, as on a full or read-only disk; `path` is then unchanged.
    """
    # In the same folder, since a rename is atomic only within a file system, and per process, as ranks may write at
    # once.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be written: {error.strerror or one_line(error)}.") from error
    finally:
        # On a read-only disk there is nothing to remove, and the first error is the one to report.
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically.

    Raises:
        NoiseError: if it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 2, *, is_data: bool = False) -> None:
    """Write a JSON file, atomically.

    Args:
        path: of the file.
        value: JSON values.
        indent: spaces per level.
        is_data: whether it holds texts of a data set or a model, which are written unchanged; all else is redacted.

    Raises:
        NoiseError: if it cannot be written, or has NaN or infinity, which JSON does not support.
    """
    value = value if is_data else redact(value)
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NoiseError(f"{path} must hold finite numbers: {one_line(error)}.") from error
    write_text(path, text + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file of incremental results; it is on disk when this returns.

    Raises:
        NoiseError: if it cannot be written; earlier lines are kept, so that the same command can continue from them.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        kept = "what is in it is kept, and the same command goes on from there"
        raise NoiseError(f"{path} must be a file that can be written: {error.strerror}; {kept}.") from None


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if they are missing, and return its path.

    Raises:
        NoiseError: if it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoiseError(f"{path} must be a folder that can be made: {error.strerror}.") from None
    return path


def check_folder(option: str, path: Path) -> None:
    """Raise unless files can be written in a folder, existing or not; no file is left behind.

    Args:
        option: the argument with the path, for the message.
        path: a folder, which need not exist.

    Raises:
        NoiseError: if they cannot, as on a read-only disk or if `path` is a file.
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
        option: the argument with the path, for the message.
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
    """Create a folder and lock it against our other processes inside this context.

    The operating system releases the lock when the process ends for any reason, also if forked children such as a data
    loader's workers live on. Of several processes of one run, the first holds the lock for all. A folder that is still
    empty at the end is removed, along with the parents created for it.

    Args:
        option: the argument with the path, for messages.
        folder: need not exist.
        name: of the lock file, for a run that writes only one file in a folder.

    Raises:
        NoiseError: if another process holds the lock, or the folder cannot be created.
    """
    if os.environ.get("RANK", "0") != "0" or sys.platform == "win32":  # which has no fcntl
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    file = _hold(option, folder, folder / name)
    _HELD.add(file)
    try:
        yield
    finally:
        _HELD.remove(file)
        _remove(folder / name)
        os.close(file)
        for path in made:
            _remove(path)


def _hold(option: str, folder: Path, path: Path) -> int:
    """Return the descriptor of the lock file; closing it releases the lock."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            message = f"{option} must be a folder that can be written to, got {folder}: {error.strerror}."
            raise NoiseError(message) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between the two lines above.
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
        except OSError:  # a full disk, or a file system without locks: assume no other process
            return file
        os.close(file)


def _let_go() -> None:
    """Close the lock files in a forked child; the lock remains as long as the parent has them open."""
    for file in _HELD:
        os.close(file)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


def _remove(path: Path) -> None:
    """Remove a file or an empty folder, if possible."""
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        pass


def _try_out(trial: Path) -> None:
    """Raise the system's error if a file cannot be written; the file is removed, and a full disk is not detected."""
    try:
        trial.write_text("trial")
    finally:
        _remove(trial)
