"""Power cuts, simulated: what the daemon wrote is recorded, and replayed as a disk may have kept it.

strace records every call of one run that changes files, with its bytes, and every answer that was given. A cut after any
of these calls leaves
  - of a file: what it held when it was last synced, and any of the later writes, each whole, torn or not at all;
  - of a folder: the names it had when it was last synced, and any of the later changes.
A daemon is started on each such state. Whatever had been promised before the cut must be kept.
"""

import random
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from daemon import Place, check
from kills import two_jobs, verdict, wait_until_gone

CALLS = "openat,write,writev,sendto,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,mkdir"
LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
FD = re.compile(r"^\d+<((?:\\x..)+|[^>]*)>")
HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Node:
    """A file: what it holds, what of it is on disk for sure, and what has been written since."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list = field(default_factory=list)

    def write(self, at: int, data: bytes) -> None:
        self.pending.append((at, data))
        apply(self.content, at, data)

    def truncate(self, length: int) -> None:
        self.pending.append((length, None))
        del self.content[length:]

    def sync(self) -> None:
        self.durable, self.pending = bytes(self.content), []

    def after_cut(self, rng: random.Random) -> bytes:
        kept = bytearray(self.durable)
        for at, data in self.pending:
            fate = rng.random()
            if fate < 0.4:
                apply(kept, at, data)
            elif fate < 0.7 and data:
                apply(kept, at, data[: rng.randrange(len(data))])
        return bytes(kept)


def apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data


class Disk:
    """Files and folders below one root, as the calls leave them."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.names: dict[str, Node] = {}
        self.durable_names: dict[str, Node] = {}
        self.pending: list[tuple[str, str, Node | None]] = []
        self.folders: set[str] = {self.root}
        self.offsets: dict[str, int] = {}

    def do(self, call: str, arguments: str, result: int) -> None:
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in HEX.findall(arguments)]
        fd = FD.match(arguments)
        path = unhex(fd.group(1)) if fd else ""
        node = self.names.get(path)
        if call == "openat" and "O_CREAT" in arguments:
            self.create(strings[0].decode(), "O_TRUNC" in arguments)
        elif call == "mkdir":
            self.folders.add(strings[0].decode())
        elif call == "write" and node is not None:
            at = self.offsets.get(path, 0)
            node.write(at, strings[0][:result])
            self.offsets[path] = at + result
        elif call == "pwrite64" and node is not None:
            node.write(int(arguments.rsplit(",", 1)[1]), strings[0][:result])
        elif call == "ftruncate" and node is not None:
            node.truncate(int(arguments.rsplit(",", 1)[1]))
        elif call in ("fsync", "fdatasync"):
            node.sync() if node is not None else self.sync_folder(path)
        elif call.startswith("rename"):
            old, new = strings[0].decode(), strings[1].decode()
            if old in self.names:
                self.change(new, self.names[old])
                self.change(old, None)
        elif call.startswith("unlink"):
            self.change(strings[0].decode(), None)

    def create(self, path: str, truncates: bool) -> None:
        if not path.startswith(self.root):
            return
        if path not in self.names:
            self.change(path, Node())
        elif truncates:
            self.names[path].truncate(0)
        self.offsets[path] = 0

    def change(self, path: str, node: Node | None) -> None:
        if not path.startswith(self.root):
            return
        self.pending.append((str(Path(path).parent), path, node))
        rename(self.names, path, node)

    def sync_folder(self, folder: str) -> None:
        for place, path, node in self.pending:
            if place == folder:
                rename(self.durable_names, path, node)
        self.pending = [change for change in self.pending if change[0] != folder]

    def after_cut(self, rng: random.Random, target: Path) -> None:
        """Writes one state that the disk may be in to `target`."""
        names = dict(self.durable_names)
        for _, path, node in self.pending:
            if rng.random() < 0.5:
                rename(names, path, node)
        for folder in sorted(self.folders):
            (target / Path(folder).relative_to(self.root)).mkdir(parents=True, exist_ok=True)
        for path, node in names.items():
            (target / Path(path).relative_to(self.root)).write_bytes(node.after_cut(rng))


def rename(names: dict[str, Node], path: str, node: Node | None) -> None:
    if node is None:
        names.pop(path, None)
    else:
        names[path] = node


def unhex(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def power_cuts(count: int) -> str:
    """`count` cuts at random calls of one run."""
    rng, place = random.Random(2), Place()
    calls = recorded(place)
    faults: dict[str, list] = {}
    for cut in range(count):
        at = rng.randrange(len(calls) + 1)
        disk, promised, done = Disk(place.state), set(), set()
        for call, arguments, result in calls[:at]:
            disk.do(call, arguments, result)
            told(call, arguments, promised, done)
        target = place.root / "cut"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        disk.after_cut(rng, target)
        daemon = place.start("--save-every", "0", state=target)
        daemon.ready()
        for name, found in check(target, daemon.settle(), promised, done).items():
            faults.setdefault(name, []).extend(f"cut {cut} after call {at}: {i}" for i in found)
        daemon.kill()
    return verdict(faults, f"{count} cuts in a run of {len(calls)} calls")


def recorded(place: Place) -> list[tuple[str, str, int]]:
    """The calls of a run with two jobs, in the order in which they ended."""
    trace = place.root / "trace"
    tracer = ("strace", "-f", "-qq", "-y", "-xx", "-s", "4000000", "-o", trace, "-e", f"trace={CALLS}")
    daemon = place.start("--save-every", "0", prefix=tracer)
    if len(two_jobs(daemon)) != 2:
        raise SystemExit("FAILED: the recorded run did not accept its jobs")
    daemon.kill()
    wait_until_gone(place)
    subprocess.run(["sync", "-f", trace], check=True)
    started, calls = {}, []
    for line in trace.read_text().splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            started[thread] = line.removesuffix(" <unfinished ...>")
            continue
        if "resumed>" in line:
            line = started.pop(thread) + line.split("resumed>", 1)[1]
        if (match := LINE.match(line)) and int(match.group(4)) >= 0:
            calls.append((match.group(2), match.group(3), int(match.group(4))))
    return calls


def told(call: str, arguments: str, promised: set[str], done: set[str]) -> None:
    """Notes what a call tells a client: that a job was accepted, or that it is done."""
    if call not in ("write", "writev", "sendto"):
        return
    text = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in HEX.findall(arguments))
    for name in re.findall(rb'"id":"([0-9a-f]+)"[^}]*"state":"(\w+)"', text):
        if b"HTTP/1.1 202" in text or b'"jobs"' in text:
            promised.add(name[0].decode())
        if name[1] == b"done":
            done.add(name[0].decode())
