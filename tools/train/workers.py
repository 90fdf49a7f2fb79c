"""Data-parallel training on one machine: one process per core, each with one thread, one exchange per step.

Threads inside an operation meet at every operation's end, so a core that other work borrows for a moment stalls them
all; processes that meet once a step do not notice. The first process is the caller itself.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

# A stopped (SIGSTOP) run must not time out while it waits for its sibling.
PATIENCE = timedelta(days=30)


def run_workers(count: int, meeting: Path, body: Callable, *arguments) -> bool:
    """Call `body(rank, count, *arguments)` in `count` processes that can `average`; what rank 0 returned."""
    meeting.unlink(missing_ok=True)
    spawn = multiprocessing.get_context("spawn")
    siblings = [
        spawn.Process(target=_enter, args=(rank, count, meeting, body, arguments), daemon=True) for rank in range(1, count)
    ]
    for sibling in siblings:
        sibling.start()
    result = _enter(0, count, meeting, body, arguments)
    for sibling in siblings:
        sibling.join()
    return result


def _enter(rank: int, count: int, meeting: Path, body: Callable, arguments: tuple) -> bool:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(meeting), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        return body(rank, count, *arguments)
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def average_gradients(parameters: list[torch.nn.Parameter], *values: float) -> list[float]:
    """Replace the gradients by their mean over the processes; the means of `values` come back."""
    if dist.get_world_size() == 1:
        return list(values)
    flat = torch.cat([*(p.grad.flatten() for p in parameters), torch.tensor(values)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad.copy_(flat[offset : offset + size].view_as(parameter))
        offset += size
    return flat[offset:].tolist()
