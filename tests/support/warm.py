"""Processes that have imported everything already: forked from the one that comparisons fork their runs from."""

import multiprocessing
import os
import signal
import sys

from neft_zoo.compare import processes


def started(function, *arguments, **environment):
    """Start a function in a process of its own, with more environment variables."""
    process = processes.context(cpu=True).Process(target=_call, args=(function, arguments, environment))
    process.start()
    return process


def started_command(argv):
    """Start a command in a process of its own; return the process and a stream of what it says."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    process = started(_command, argv, writing)
    writing.close()
    return process, open(os.dup(reading.fileno()), encoding="utf-8")


def _call(function, arguments, environment):
    os.environ.update(environment)
    function(*arguments)


def _command(argv, writing):
    from neft_zoo.cli.main import main

    runs_are_forked_here()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(writing.fileno(), 1)
    os.dup2(writing.fileno(), 2)
    writing.close()
    sys.argv = ["neft-zoo", *argv]
    sys.exit(main(argv))


def runs_are_forked_here():
    """Fork runs from this process, which has imported everything, instead of another one that would do so again."""
    processes.context = lambda cpu: multiprocessing.get_context("fork")
