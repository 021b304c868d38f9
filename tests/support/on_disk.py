"""Run commands, each with its output on a disk that is full, on one that is nearly full, and on one that is read-only.

`unshare -rm python on_disk.py DISK COMMAND...` prints what each did, by state of the disk: status, stdout, stderr, and
the files that are left. All run in one process, since most of what a command costs is the start of another.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

CANNOT_MOUNT = 77
FILLED = {"full": 300, "nearly full": 248}  # of 256 KiB


@contextmanager
def mounted(disk, state):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk])
    if done.returncode:
        sys.exit(CANNOT_MOUNT)
    try:
        if state in FILLED:
            fill(Path(disk, "filler"), FILLED[state])
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path, kib):
    with path.open("wb", buffering=0) as file:
        for _ in range(kib):
            try:
                file.write(bytes(1024))
            except OSError:
                return


def run(argv):
    """Return the exit status of a command and what it wrote, also from the processes that it started."""
    from neft_zoo.cli.main import main

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = [os.dup(1), os.dup(2)]
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            status = main(argv)
        except SystemExit as exit:
            status = exit.code
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for saved, number in zip(before, (1, 2), strict=True):
                os.dup2(saved, number)
                os.close(saved)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return {"status": status, "stdout": texts[0], "stderr": texts[1]}


if __name__ == "__main__":
    disk, *commands = sys.argv[1:]
    results = {state: [] for state in (*FILLED, "read-only")}
    for state, command in itertools.product(results, commands):
        with mounted(disk, state):
            done = run(command.split())
            left = [str(path) for path in Path(disk).rglob("*") if path.is_file() and path.name != "filler"]
        results[state].append({**done, "left": left})
    print(json.dumps(results))
