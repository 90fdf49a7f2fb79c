"""What the daemon promises, tried: deaths, power cuts, failing calls, crowds, floods.

    python3 tools/reliability            a minute or two, what CI runs
    python3 tools/reliability --long     the figures of docs/reliability.md; an hour
    python3 tools/reliability --only NAME

Needs target/release/tintype (or $TINTYPE), strace, and root where clients are to be several users.
"""

import argparse
import sys
import time

import cuts
import disks
import kills
import load
import manager

def failing(fault: str, stride: int) -> str:
    return kills.at_every_call(fault, stride, kills.FAILING)


def starving(stride: int) -> str:
    return kills.at_every_call("error=ENOMEM", stride, ("mmap,brk",), "+")


TRIALS = {
    "service-manager": (manager.service_manager, manager.service_manager),
    "kills": (lambda: kills.random_kills(20), lambda: kills.random_kills(500)),
    "kill-at-writes": (lambda: kills.at_every_call("signal=KILL", 9), lambda: kills.at_every_call("signal=KILL", 1)),
    "full-disk-at-writes": (lambda: failing("error=ENOSPC", 17), lambda: failing("error=ENOSPC", 1)),
    "broken-disk-at-writes": (lambda: failing("error=EIO", 23), lambda: failing("error=EIO", 1)),
    "real-disk": (disks.full_and_read_only, disks.full_and_read_only),
    "no-memory": (lambda: starving(7), lambda: starving(1)),
    "power-cuts": (lambda: cuts.power_cuts(40), lambda: cuts.power_cuts(1000)),
    "crowd": (lambda: load.many_jobs(640), lambda: load.many_jobs(10_016)),
    "health": (lambda: load.health_while_computing(3), lambda: load.health_while_computing(60)),
    "flood": (lambda: load.flood(3), lambda: load.flood(60)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", choices=TRIALS, action="append")
    options = parser.parse_args()
    for name in options.only or TRIALS:
        begun = time.monotonic()
        said = TRIALS[name][options.long]()
        print(f"{name:22} {said} [{time.monotonic() - begun:.0f} s]", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
