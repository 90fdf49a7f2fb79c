"""A service manager: hands the socket over, is told when the daemon is ready, and watches it."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from daemon import Daemon, Place

WATCHDOG_SECONDS = 1.2


class Managed(Daemon):
    """A daemon that got its socket from us, and reports to us."""

    def __init__(self, place: Place) -> None:
        self.reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reports.bind(str(place.root / "notify"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place.socket))
        listener.listen(64)
        settings = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(place.root / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}
        # The variables name the process that they are for, which a shell can say of the one that it becomes.
        number = listener.fileno()
        shell = ["sh", "-c", f'LISTEN_PID=$$ exec "$@" 3<&{number}', "sh", *place.command()]
        self.place, self.begun = place, time.monotonic()
        self.log = (place.root / "log").open("w+b")
        settings |= os.environ
        self.process = subprocess.Popen(shell, env=settings, pass_fds=(number,), stderr=self.log, start_new_session=True)
        listener.close()

    def reported(self, seconds: float) -> list[str]:
        """What it reports within so many seconds."""
        heard, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.reports.settimeout(left)
            try:
                heard += self.reports.recv(4096).decode().split()
            except TimeoutError:
                break
        return heard


def service_manager() -> str:
    """Socket activation, READY, a watchdog that is fed while the compute thread advances and only then, STOPPING."""
    place = Place()
    daemon = Managed(place)
    ready = daemon.ready()
    expect("READY=1" in daemon.reported(1), "it never said that it is ready")
    expect("WATCHDOG=1" in daemon.reported(2), "it does not feed the watchdog while it is idle")
    daemon.submit(steps=1000)
    expect(daemon.reported(2).count("WATCHDOG=1") >= 2, "it does not feed the watchdog while it draws")
    daemon.settle()
    with held_up(compute_thread(daemon)):
        time.sleep(WATCHDOG_SECONDS)
        daemon.reported(0.1)
        expect("WATCHDOG=1" not in daemon.reported(2), "it feeds the watchdog though the compute thread hangs")
        expect(daemon.ask("GET", "/v1/health")[0] == 200, "it does not answer while the compute thread hangs")
    expect("WATCHDOG=1" in daemon.reported(10), "it does not feed the watchdog again")
    daemon.process.send_signal(signal.SIGTERM)
    expect("STOPPING=1" in daemon.reported(2), "it never said that it stops")
    expect(daemon.process.wait(30) == 0, "it did not stop well")
    expect(place.socket.exists(), "it took away a socket that is not its own")
    return f"ready in {ready * 1e3:.0f} ms on a socket that was handed over; the watchdog is fed while it advances, and only then"


def compute_thread(daemon: Daemon) -> int:
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "compute":
            return int(task.name)
    raise SystemExit("FAILED: there is no compute thread")


class held_up:
    """Holds one thread up at its next system call, for as long as this is entered."""

    def __init__(self, thread: int) -> None:
        command = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=all:delay_enter=60000000", "-p", str(thread)]
        self.tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def __enter__(self) -> None:
        time.sleep(0.5)

    def __exit__(self, *_) -> None:
        self.tracer.kill()
        self.tracer.wait()


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {otherwise}")
