"""``/metrics``: a few figures in Prometheus' text format, under dockerd's names."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from hyperstack import __version__
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine


def only() -> Router:
    """Return a router that answers nothing else."""
    router = Router()
    router.add("GET", "/metrics", metrics)
    return router


async def metrics(request: Request, engine: Engine) -> None:
    """``GET /metrics``"""
    facts = await engine.system.info()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    name = "engine_daemon_container_states_containers"
    lines = [
        f"# HELP {name} The count of containers in various states",
        f"# TYPE {name} gauge",
        f'{name}{{state="paused"}} {facts.paused}',
        f'{name}{{state="running"}} {facts.running}',
        f'{name}{{state="stopped"}} {facts.stopped}',
        "# HELP engine_daemon_engine_info The information related to the engine",
        "# TYPE engine_daemon_engine_info gauge",
        f'engine_daemon_engine_info{{version="{__version__}",kernel="{facts.kernel}",'
        f'daemon_id="{facts.id}"}} 1',
        "# HELP engine_daemon_engine_cpus_cpus The number of cpus that the host system has",
        "# TYPE engine_daemon_engine_cpus_cpus gauge",
        f"engine_daemon_engine_cpus_cpus {facts.cpus}",
        "# HELP engine_daemon_engine_memory_bytes The number of bytes of memory of the host",
        "# TYPE engine_daemon_engine_memory_bytes gauge",
        f"engine_daemon_engine_memory_bytes {facts.memory}",
        "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.",
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.2f}",
    ]
    body = "\n".join(lines) + "\n"
    await request.answer(200, body.encode(), "text/plain; version=0.0.4; charset=utf-8")
