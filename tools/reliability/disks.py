"""Disks that are really full, and really read-only: small ones in memory, which only root can mount."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from daemon import Place, check

SMALL_MB = 3


@contextmanager
def small_disk(place: Place):
    place.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m,mode=750", "tmpfs", place.state], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place.state], check=True)


def full_and_read_only() -> str:
    """A disk that somebody else fills as soon as a job is accepted, and that is read-only in the end."""
    if os.geteuid() != 0:
        return "left out: only root can mount a disk"
    place = Place()
    with small_disk(place):
        daemon = place.start("--reserve-disk", "4K", "--queue", "64", "--queue-per-uid", "64")
        daemon.ready()
        filler, promised, refused, ended = place.state / "filler", set(), 0, {}
        for seed in range(20):
            promised.add(hand_in(daemon, seed))
            fill(filler)
            daemon.settle()
            # A picture that failed may have left a little room.
            status, answer = daemon.submit(seed=seed)
            if status == 202:
                promised.add(answer["id"])
            elif status == 507 and answer["error"]["code"] == "no_space":
                refused += 1
            else:
                raise SystemExit(f"FAILED: a full disk is answered with {status} {answer}")
            ended = {job["id"]: job["state"] for job in daemon.settle()}
            filler.unlink()
        if not promised <= set(ended):
            raise SystemExit(f"FAILED: lost on a full disk: {promised - set(ended)}")
        failed = list(ended.values()).count("failed")
        daemon.kill()
        daemon = place.start("--reserve-disk", "4K")
        daemon.ready()
        promised.add(hand_in(daemon, 99))
        faults = check(place.state, daemon.settle(), promised)
        # Those that could not be written have failed, and say so.
        faults.pop("failed")
        if any(faults.values()):
            raise SystemExit(f"FAILED: after there was room again: {faults}")
        daemon.kill()
        subprocess.run(["mount", "-o", "remount,ro", place.state], check=True)
        daemon = place.start()
        code = daemon.process.wait(10)
        said = daemon.said().strip()
        if code != 1 or str(place.state) not in said:
            raise SystemExit(f"FAILED: a read-only state gives exit code {code} and {said!r}")
    return f"{len(promised)} jobs on a disk of {SMALL_MB} MB that filled up meanwhile, {failed} failed for it, {refused} more refused: none lost or torn; read-only: exit code 1, and the reason"


def hand_in(daemon, seed: int) -> str:
    status, job = daemon.submit(steps=3, seed=seed)
    if status != 202:
        raise SystemExit(f"FAILED: {status} {job}")
    return job["id"]


def fill(path: Path) -> None:
    """Takes all the room that there is."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    time.sleep(0.01)
