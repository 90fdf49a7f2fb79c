"""SIGKILL at random moments, and at every system call that writes; and every such call failing.

Jobs are handed in under idempotency keys, again and again until they are accepted, as a careful client would. After each
death the daemon starts anew on the same state. In the end no accepted job may be lost, doubled, or without its picture.
"""

import random
import subprocess
import time

from daemon import Place, check

WRITES = ("write", "pwrite64", "fdatasync", "fsync", "rename,renameat,renameat2", "unlink", "ftruncate", "openat")
# Far enough to reach the end of two jobs; a run in which nothing was killed ends a series sooner.
CALLS_MAX = 400
# What can fail for want of room; writes to other things than files are among `write`.
FAILING = ("pwrite64", "fdatasync", "fsync", "rename,renameat,renameat2", "unlink", "ftruncate", "openat")


def random_kills(count: int) -> str:
    """`count` deaths, each within half a second of the start."""
    rng, place, promised, number, deaths = random.Random(1), Place(), {}, 0, 0
    flags = ("--save-every", "0.02", "--queue", "64", "--queue-per-uid", "64", "--keep-jobs", "100000")
    slowest = 0.0
    while deaths < count:
        daemon = place.start(*flags)
        end = daemon.begun + rng.uniform(0.03, 0.5)
        try:
            slowest = max(slowest, daemon.ready())
            while time.monotonic() < end:
                key = f"key-{number}"
                status, job = daemon.submit(steps=rng.choice((1, 5, 40)), seed=number, key=key)
                if status == 202:
                    promised.setdefault(key, set()).add(job["id"])
                    number += 1
                time.sleep(rng.uniform(0, 0.02))
        except OSError:
            pass
        daemon.kill()
        deaths += 1
    daemon = place.start(*flags)
    daemon.ready()
    jobs = daemon.settle()
    faults = check(place.state, jobs, {job for ids in promised.values() for job in ids})
    faults["doubled"] = [key for key, ids in promised.items() if len(ids) > 1]
    # A request whose answer was lost may be a job all the same, but each at most once.
    faults["unasked"] = [job["id"] for job in jobs[number + 1 :]]
    # Two deaths of the same job at the same step look like a job that ends the daemon.
    crashed = [job["id"] for job in jobs if (job.get("error") or {}).get("code") == "crashed_repeatedly"]
    faults["failed"] = [job for job in faults["failed"] if job not in crashed]
    daemon.kill()
    return verdict(faults, f"{deaths} kills, {len(promised)} jobs, {len(crashed)} given up after two deaths at one step, ready again within {slowest:.2f} s")


def at_every_call(fault: str, stride: int, calls: tuple = WRITES, onwards: str = "") -> str:
    """One fault at the N-th call of each kind, N = 1, 1 + stride, ... until a run goes through; `onwards` is "+" if all
    later calls are to fail too."""
    runs, all_faults = 0, {}
    for call in calls:
        for number in range(1, CALLS_MAX, stride):
            place = Place()
            inject = f"inject={call}:{fault}:when={number}{onwards}"
            tracer = ("strace", "-f", "-qq", "-o", place.root / "trace", "-e", f"trace={call}", "-e", inject)
            daemon = place.start("--save-every", "0", prefix=tracer)
            promised = two_jobs(daemon)
            hit = "INJECTED" in (place.root / "trace").read_text(errors="replace") or daemon.process.poll() is not None
            daemon.kill()
            wait_until_gone(place)
            daemon = place.start("--save-every", "0")
            daemon.ready()
            jobs = daemon.settle()
            faults = check(place.state, jobs, promised)
            daemon.kill()
            runs += 1
            # Nor has one that was refused its memory, and says so, failed for a death.
            starved = [job["id"] for job in jobs if (job.get("error") or {}).get("code") == "insufficient_memory"]
            faults["failed"] = [job for job in faults["failed"] if job not in starved or fault != "error=ENOMEM"]
            for name, ids in faults.items():
                all_faults.setdefault(name, []).extend(f"{call}:{number} {i}" for i in ids)
            if not hit:
                break
    # A job whose picture could not be written has failed, and says so; only a death must not fail it.
    if fault in ("error=ENOSPC", "error=EIO"):
        all_faults.pop("failed", None)
    return verdict(all_faults, f"{runs} runs")


def two_jobs(daemon) -> set[str]:
    """Hands two jobs in and waits for them, as long as the daemon lives; those that were accepted."""
    promised = set()
    try:
        daemon.ready(10)
        for seed in range(2):
            status, job = daemon.submit(steps=3, seed=seed, key=f"key-{seed}")
            if status == 202:
                promised.add(job["id"])
        daemon.settle(5)
    except (OSError, RuntimeError):
        pass
    return promised


def wait_until_gone(place: Place) -> None:
    """A daemon that was traced ends a moment after its tracer."""
    for _ in range(500):
        lock = place.state / "lock"
        if not lock.exists() or subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0:
            return
        time.sleep(0.01)
    raise SystemExit("FAILED: a killed daemon does not end")


def verdict(faults: dict[str, list], what: str) -> str:
    bad = {name: found for name, found in faults.items() if found}
    if bad:
        raise SystemExit(f"FAILED: {what}: {bad}")
    return f"{what}: 0 lost, 0 doubled, 0 partial pictures"
