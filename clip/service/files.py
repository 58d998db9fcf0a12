"""Writes what was rendered for dnsmasq and the NFS server, and tells them. A file is replaced as a whole, and only if it differs.

Who is told what: dnsmasq sees new and changed hosts by itself, not that a file is gone, so a host that goes is first told to be
ignored, then its file is removed and dnsmasq gets SIGHUP; another configuration needs a fresh dnsmasq, which its supervisor starts.
ganesha reads its exports again on SIGHUP. Nothing of a node is written before its state directory is there.
"""

import contextlib
import logging
import os
import signal
from pathlib import Path

from clip.render import dnsmasq, nfs
from clip.render.checks import RenderError
from clip.service.config import Config
from clip.table import Table

log = logging.getLogger(__name__)


def write_all(config: Config, table: Table) -> list[str]:
    """Brings all files in line with the table; returns what changed, in words. RenderError, OSError; repeating it is safe."""
    hosts = dnsmasq.host_files(table)  # all of it is rendered before anything is written
    settings = dnsmasq.config(config.dhcp_settings, table.network)
    exports = nfs.ganesha(config.nfs_settings, table)
    for directory in (config.hosts, config.nodes, config.recovery, config.leases.parent):
        directory.mkdir(parents=True, exist_ok=True)
    for row in table.rows:
        (config.nodes / row.name).mkdir(mode=0o700, exist_ok=True)
    changed = []
    if replace(config.ganesha, exports):
        changed.append("exports")
        tell(config.ganesha_pid, "ganesha.nfsd", signal.SIGHUP)
    if write_hosts(config, hosts):
        changed.append("hosts")
    if replace(config.dnsmasq, settings):
        changed.append("dnsmasq")
        tell(config.dnsmasq_pid, "dnsmasq", signal.SIGTERM)
    return changed


def write_hosts(config: Config, hosts: dict[str, str]) -> bool:
    """The directory of hosts. True when something changed."""
    changed = False
    for name, line in hosts.items():
        changed |= replace(config.hosts / name, line)
    gone = [path for path in config.hosts.iterdir() if path.name not in hosts and not path.name.startswith(".")]
    for path in gone:
        with contextlib.suppress(RenderError):  # somebody else's file: removed all the same
            replace(path, dnsmasq.ignore_line(path.name.replace("-", ":")))
        path.unlink()
    if gone:
        tell(config.dnsmasq_pid, "dnsmasq", signal.SIGHUP)
    return changed or bool(gone)


def replace(path: Path, text: str) -> bool:
    """True when the file said something else before. Readers see the old text or the new."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return False
    # dnsmasq reads every file of its directory, but none whose name begins with a dot
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return True


def tell(pid_file: Path, program: str, number: signal.Signals) -> bool:
    """Signals the program whose number is in the file, if it is still that one. False: it does not run now."""
    try:
        pid = int(pid_file.read_text(encoding="utf-8"))
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() != program:
            return False
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    log.info("%s (%d): told by %s", program, pid, number.name)
    return True
