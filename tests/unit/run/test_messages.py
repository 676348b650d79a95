from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

from engine.records import Media
from engine.run.messages import Job, Link, Ready
from tests.conftest import REPOSITORY
from tests.workers import is_alive


def test_requests_and_messages_cross_the_pipe() -> None:
    ours, theirs = multiprocessing.Pipe()
    link, job = Link(theirs), Job("probe", Media("a", Path("a.mp4")))
    ours.send(job)
    assert link.receive() == job
    link.send(Ready())
    assert ours.recv() == Ready()


def test_a_pipe_that_is_closed_ends_requests_and_swallows_messages() -> None:
    ours, theirs = multiprocessing.Pipe()
    link = Link(theirs)
    ours.close()
    assert link.receive() is None
    link.send(Ready())


def test_a_worker_dies_with_its_parent() -> None:
    """Even if it sees nothing of its pipe: here it sleeps."""
    child = (
        "import time; from engine.run.messages import die_with_parent; die_with_parent(); "
        "print(1, flush=True); time.sleep(99)"
    )
    script = f"""if True:
        import os, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    parent = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert parent.returncode == -9
    pid = int(parent.stdout)
    deadline_s = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not is_alive(pid)
