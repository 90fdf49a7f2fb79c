"""Many clients, impolite clients, and what the others notice of them."""

import multiprocessing
import os
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from daemon import Place, TERMINAL

CLIENTS = 32
UIDS = (0, 20001, 20002, 20003)
WARM_JOBS = 100
# Growth that fragmentation of the allocator alone may cause.
GROWTH_MAX_BYTES = 8 << 20


def many_jobs(count: int) -> str:
    """`count` small jobs from 32 clients under four users: each ends exactly once, and memory stays flat."""
    place = Place()
    flags = ("--queue", "64", "--queue-per-uid", "64", "--connections", "128", "--connections-per-uid", "64", "--keep-jobs", "200")
    daemon = place.start(*flags)
    daemon.ready()
    os.chmod(place.socket, 0o666)
    begun = time.monotonic()
    with multiprocessing.Pool(CLIENTS) as pool:
        shares = [(daemon.process.pid, place.socket, UIDS[n % len(UIDS)], n, count // CLIENTS) for n in range(CLIENTS)]
        running = pool.starmap_async(client, shares)
        memory = watch_memory(daemon, running)
        ends = running.get()
    seconds = time.monotonic() - begun
    daemon.kill()
    wrong = [end for part in ends for end in part if end != ["done"]]
    if wrong:
        raise SystemExit(f"FAILED: {len(wrong)} jobs did not end once and well: {wrong[:3]}")
    warm, last = memory[0], memory[-1]
    if last > warm + GROWTH_MAX_BYTES:
        raise SystemExit(f"FAILED: memory grew from {warm} to {last} bytes")
    jobs = sum(map(len, ends))
    return f"{jobs} jobs in {seconds:.0f} s, each ended once; anonymous memory {warm / 1e6:.1f} MB after {WARM_JOBS} jobs, {last / 1e6:.1f} MB at the end, {max(memory) / 1e6:.1f} MB at most"


def watch_memory(daemon, running) -> list[int]:
    """Anonymous memory from the hundredth job on."""
    memory = []
    while not running.ready():
        text = daemon.ask("GET", "/v1/metrics")[1].decode()
        done = sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("tintype_jobs_ended_total"))
        if done >= WARM_JOBS:
            memory.append(daemon.memory())
        time.sleep(0.2)
    return memory or [daemon.memory()]


def client(pid, path, uid: int, number: int, count: int) -> list[list[str]]:
    """Hands `count` jobs in as user `uid`, one after the other; the ends of each that were told."""
    import json

    from daemon import Connection

    if os.geteuid() == 0 and uid:
        os.setresuid(uid, uid, uid)
    ends = []
    for job in range(count):
        body = json.dumps({"prompt": "", "width": 16, "height": 16, "steps": 1, "seed": number * 100_000 + job})
        while True:
            connection = Connection(path)
            connection.request("POST", "/v1/jobs", body)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            connection.close()
            if answer.status == 202:
                break
            time.sleep(0.05)
        connection = Connection(path)
        connection.request("GET", f"/v1/jobs/{told['id']}/events")
        lines = connection.getresponse().read().splitlines()
        connection.close()
        ends.append([event for event in (json.loads(line)["event"] for line in lines) if event in TERMINAL])
    return ends


def health_while_computing(seconds: float) -> str:
    """How long `GET /v1/health` takes while a picture is drawn."""
    place = Place()
    daemon = place.start("--queue", "64", "--queue-per-uid", "64")
    ready = daemon.ready()
    keep_busy(daemon, 0)
    times, end, seed = [], time.monotonic() + seconds, 1
    while time.monotonic() < end:
        begun = time.monotonic()
        health = daemon.ask("GET", "/v1/health")[1]
        times.append(time.monotonic() - begun)
        if health["queue"]["waiting"] < 2:
            keep_busy(daemon, seed)
            seed += 1
        time.sleep(0.005)
    daemon.kill()
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    return f"ready in {ready * 1e3:.0f} ms; {len(times)} calls, median {statistics.median(times) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, longest {times[-1] * 1e3:.1f} ms"


def keep_busy(daemon, seed: int) -> None:
    daemon.submit(steps=1000, seed=seed)


def flood(seconds: float) -> str:
    """A thousand connections and 64 that send a byte a second, from a user of their own; what honest jobs notice."""
    place = Place()
    daemon = place.start()
    daemon.ready()
    os.chmod(place.socket, 0o666)
    alone = honest(daemon, seconds / 3)
    stop = multiprocessing.Event()
    attackers = [multiprocessing.Process(target=attack, args=(place.socket, kind, stop)) for kind in ("open", "slow")]
    for attacker in attackers:
        attacker.start()
    time.sleep(1)
    under = honest(daemon, seconds)
    stop.set()
    for attacker in attackers:
        attacker.join()
    daemon.kill()
    return f"honest jobs: {alone * 1e3:.1f} ms alone, {under * 1e3:.1f} ms under the flood ({(under / alone - 1) * 100:+.0f}%)"


def honest(daemon, seconds: float) -> float:
    """The median time of a picture in one call."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        body = {"prompt": "", "width": 16, "height": 16, "steps": 100, "seed": 1}
        status, _ = daemon.ask("POST", "/v1/generate", body)
        if status != 200:
            raise SystemExit(f"FAILED: an honest job was answered {status}")
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def attack(path, kind: str, stop) -> None:
    os.setresuid(20009, 20009, 20009)
    if kind == "open":
        with ThreadPoolExecutor(4) as pool:
            while not stop.is_set():
                held = [s for s in pool.map(lambda _: connected(path), range(250)) if s]
                stop.wait(0.25)
                for s in held:
                    s.close()
        return
    slow = [None] * 64
    while not stop.is_set():
        for n, s in enumerate(slow):
            try:
                s.send(b"x")
            except (OSError, AttributeError):
                slow[n] = connected(path)
        stop.wait(1)


def connected(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(1)
    try:
        s.connect(str(path))
        s.send(b"GET / HTTP/1.1\r\n")
        return s
    except OSError:
        s.close()
        return None
