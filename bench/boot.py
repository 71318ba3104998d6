"""The ``boot`` line: sandboxes without a container, from nothing to the agent's hello."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

from bench.measure import Outcome, own_cpu
from hyperstack.config import Config
from hyperstack.engine.sandbox import Sandboxes, SandboxPlan
from hyperstack.guest.kit import Kit
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform.cgroup import Cgroups
from hyperstack.platform.process import become_subreaper
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database
from hyperstack.vmm import drivers
from hyperstack.vmm.base import Runtime

TIMES = 20
UIDS = 1_400_000


async def _boot(config: Config, runtime: Runtime) -> tuple[list[float], float]:
    for folder in (config.data_root, config.exec_root):
        folder.mkdir(parents=True, exist_ok=True)
    kit, db, tasks = Kit.load(config.kit), Database(config.data_root / "hyper.db"), Tasks()
    sandboxes = Sandboxes(
        config, db, kit, drivers(config, kit), SandboxNetwork(config), Cgroups.detect(), tasks
    )
    plan = SandboxPlan(runtime=runtime, memory=512 << 20)
    samples: list[float] = []
    uids = range(config.uid_base, config.uid_base + config.uid_count)
    before = own_cpu(os.getpid(), uids)
    try:
        for _ in range(TIMES + 1):
            began = time.perf_counter()
            sandbox = await sandboxes.boot(sandboxes.new_row(plan), plan)
            samples.append(time.perf_counter() - began)
            await sandboxes.end(sandbox, clean=False)
    finally:
        await tasks.aclose()
        db.close()
    return samples[1:], (own_cpu(os.getpid(), uids) - before) / (TIMES + 1)


def boot(root: Path, kit_dir: Path, runtime: Runtime = Runtime.UML) -> Outcome:
    """Boot twenty sandboxes one after the other; the value is the median in seconds."""
    become_subreaper()
    config = Config(
        data_root=root / "data", exec_root=root / "exec", kit_dir=kit_dir, uid_base=UIDS
    )
    samples, cpu = asyncio.run(_boot(config, runtime))
    return Outcome(value=statistics.median(samples), samples=samples, cpu=cpu)
