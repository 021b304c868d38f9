"""Run commands, each with its output on a disk that is full, on one that is nearly full, and on one that is read-only.

All run in one process, which may mount what no other sees: most of what a command costs is the start of another.
"""

import ctypes
import itertools
import json
import os
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

from warm import runs_are_forked_here

CANNOT_MOUNT = 77
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # of linux/sched.h
FILLED = {"full": 300, "nearly full": 248}  # of 256 KiB


def mount_alone():
    """Let this process mount what no other sees, as `unshare -rm` does."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(NEW_MOUNTS | NEW_USER):
        sys.exit(CANNOT_MOUNT)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except PermissionError:  # some systems let nobody but root have what such a process may do
        sys.exit(CANNOT_MOUNT)
    if subprocess.run(["mount", "--make-rprivate", "/"]).returncode:
        sys.exit(CANNOT_MOUNT)


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


def main(disk, commands, output):
    """Write what each command did, by state of the disk: status, stdout, stderr, and the files that are left."""
    mount_alone()
    runs_are_forked_here()
    os.chdir(output.parent)
    sys.path.insert(0, str(output.parent))
    results = {state: [] for state in (*FILLED, "read-only")}
    for state, command in itertools.product(results, commands):
        with mounted(disk, state):
            done = run(command.split())
            left = [str(path) for path in disk.rglob("*") if path.is_file() and path.name != "filler"]
        results[state].append({**done, "left": left})
    output.write_text(json.dumps(results))
