from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
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


def test_a_worker_whose_parent_died_before_it_could_ask_ends(tmp_path: Path) -> None:
    """The kernel tells only those who asked before; this one asks a second late, and would sleep for ever."""
    script = """if True:
        import multiprocessing, os, signal
        from tests.workers import sleep_late
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=sleep_late, daemon=True)
            process.start()
            print(process.pid, flush=True)
            os.read(0, 1)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(script))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == b"asleep\n"
        assert parent.stdin is not None
        parent.stdin.write(b"x")
    deadline_s = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < deadline_s, "a worker outlives its parent"
        time.sleep(0.05)
