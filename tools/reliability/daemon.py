"""A daemon to be mistreated: started, asked, killed, started again. Python's standard library alone."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("TINTYPE", ROOT / "target/release/tintype"))
MAGIC = b"TTJRNL\0\1"
TERMINAL = ("done", "failed", "cancelled")


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        super().__init__("tintype", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Place:
    """A folder with a small model of random weights, a state and a socket."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tintype-")
        self.root = Path(self.folder.name)
        os.chmod(self.root, 0o755)
        self.socket, self.state, self.models = self.root / "socket", self.root / "state", self.root / "models"
        self.models.mkdir()
        model = self.models / "tiny.tintype"
        subprocess.run([PROGRAM, "import", ROOT / "tests/data/tiny", "-o", model], check=True, stdout=subprocess.DEVNULL)

    def command(self, *flags: str, state: Path | None = None) -> list:
        paths = ["--socket", self.socket, "--models", self.models, "--state", state or self.state]
        return [PROGRAM, "serve", "--threads", "1", *paths, *flags]

    def start(self, *flags: str, prefix: tuple = (), state: Path | None = None) -> "Daemon":
        return Daemon(self, [*prefix, *self.command(*flags, state=state)])


class Daemon:
    """A running daemon."""

    def __init__(self, place: Place, command: list) -> None:
        self.place, self.begun = place, time.monotonic()
        self.log = tempfile.TemporaryFile()
        # A session of its own, so that a tracer and what it traces end together.
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log, start_new_session=True)

    def ready(self, seconds: float = 30) -> float:
        """Waits until it answers; how long that took from its start."""
        while self.process.poll() is None and time.monotonic() < self.begun + seconds:
            try:
                self.ask("GET", "/v1/health", timeout=5)
                return time.monotonic() - self.begun
            except OSError:
                time.sleep(0.002)
        raise RuntimeError(f"the daemon does not answer: {self.said()}")

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def ask(self, method: str, path: str, body: dict | None = None, headers: dict | None = None, timeout: float = 60):
        """Status and parsed answer; an OSError if the daemon goes away."""
        connection = Connection(self.place.socket, timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, json.loads(text) if is_json else text

    def submit(self, steps: int = 1, seed: int = 0, key: str | None = None):
        body = {"prompt": "a red box", "width": 16, "height": 16, "steps": steps, "seed": seed}
        return self.ask("POST", "/v1/jobs", body, {"Idempotency-Key": key} if key else None)

    def jobs(self) -> list[dict]:
        return self.ask("GET", "/v1/jobs")[1]["jobs"]

    def settle(self, seconds: float = 120) -> list[dict]:
        """Waits until every job has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            jobs = self.jobs()
            if all(job["state"] in TERMINAL for job in jobs):
                return jobs
            time.sleep(0.005)
        raise RuntimeError(f"jobs do not end: {self.jobs()}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def memory(self) -> int:
        """Anonymous memory, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])) * 1024


def records(journal: Path) -> list[dict]:
    """The whole records of a journal."""
    data, found = journal.read_bytes(), []
    if not data.startswith(MAGIC):
        return found
    at = len(MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if at + 12 + length > len(data):
            break
        found.append(json.loads(data[at + 12 : at + 12 + length]))
        at += 12 + length
    return found


def check(state: Path, jobs: list[dict], promised: set[str], told_done: set[str] = frozenset()) -> dict:
    """What is wrong after a recovery: promised jobs that are lost, ended twice, or without a whole picture."""
    known = {job["id"]: job for job in jobs}
    ends: dict[str, int] = {}
    for record in records(state / "journal"):
        if record["record"] == "ended":
            ends[record["id"]] = ends.get(record["id"], 0) + 1
    partial = []
    for path in (state / "images").iterdir():
        data = path.read_bytes()
        job = known.get(path.stem)
        if job is None or sha256(data).hexdigest() != job.get("sha256"):
            partial.append(path.name)
    return {
        "lost": sorted(promised - set(known)) + sorted(i for i in told_done if known.get(i, {}).get("state") != "done"),
        "failed": sorted(i for i in promised & set(known) if known[i]["state"] != "done"),
        "ended twice": sorted(i for i, count in ends.items() if count > 1),
        "partial pictures": partial,
    }
