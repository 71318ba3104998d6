"""The daemon's configuration: one frozen value, made by the command line and the config file.

Keys of the config file are dockerd's own where dockerd has the same thing, see
``docs/configuration.md``. Parsing lives in ``cli/hyperd.py``; this module only says what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything the daemon was told. Sizes are bytes, times are seconds."""

    data_root: Path = Path("/var/lib/hyper")
    """Images, disks, logs, the database: what survives a reboot."""
    exec_root: Path = Path("/run/hyper")
    """Sockets, console fifos, pid files: what does not."""
    kit_dir: Path = Path("/var/lib/hyper/kit")
    """The guest kit, see ``docs/kit.md``. ``current`` inside it names the version in use."""
    pidfile: Path | None = None
    hosts: tuple[str, ...] = ("unix:///var/run/hyper.sock",)
    group: str = "hyper"
    """Group that owns the unix socket; ignored with a warning if the host has no such group."""
    tls: bool = False
    tls_verify: bool = False
    tls_ca_cert: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_insecure_tcp: bool = False
    """The operator said in plain words that TCP without mutual TLS gives root to everybody."""

    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5

    bip: str = "172.17.0.1/16"
    """Address of the default bridge with its prefix length; taken from the pools if in use."""
    bridge_name: str = "hyper0"
    fixed_cidr: str | None = None
    mtu: int = 1500
    default_address_pools: tuple[tuple[str, int], ...] = (
        ("172.17.0.0/12", 16),
        ("192.168.0.0/16", 20),
    )
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    default_publish_address: str = "0.0.0.0"
    icc: bool = True

    default_runtime: str = "hyper"
    allow_uml_fast: bool = False
    """Allow runtime ``hyper-uml-fast`` (UML in seccomp mode), see design section 9."""
    sandbox_memory: int = 2 * GiB
    """Memory of a VM whose container has no limit; at most half of the host's is used."""
    sandbox_overhead: int = 48 * MiB
    """What the guest's kernel and agent need beside a container's memory limit."""
    storage_size: int = 10 * GiB
    """Size of a container's sparse writable disk without ``--storage-opt size=``."""
    uid_base: int = 700_000
    """First of the host uids that sandboxes run as, one each."""
    uid_count: int = 65_000
    boot_timeout: float = 60.0
    """Seconds from launch to the agent's hello; four times that under TCG."""

    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    log_level: str = "info"
    debug: bool = False
    metrics_addr: str | None = None
    shutdown_timeout: int = 15
    config_file: Path | None = None

    @property
    def kit(self) -> Path:
        """The folder of the kit in use."""
        return self.kit_dir / "current"

    def sandbox_dir(self, sandbox: str) -> Path:
        """The folder of a sandbox's layers and disks: ``data-root/sandboxes/ID``."""
        return self.data_root / "sandboxes" / sandbox

    def sandbox_run_dir(self, sandbox: str) -> Path:
        """The folder of a sandbox's sockets and console: ``exec-root/sandboxes/ID`` (short)."""
        return self.exec_root / "sandboxes" / sandbox[:16]
