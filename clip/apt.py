"""What the building machine's own apt is set up to: its mirror and proxies. No host name is written anywhere in this project."""

import re
import subprocess
from pathlib import Path

from clip.errors import ImageError

_SECONDS = 30


def host_codename(os_release: str) -> str:
    """``bookworm`` from the text of /etc/os-release; "" where it does not say."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release, re.MULTILINE)
    return match[1] if match else ""


def choose_mirror(index_targets: str, codename: str) -> str | None:
    """The first repository of the host's own release, from lines ``URI CODENAME``."""
    for line in index_targets.splitlines():
        uri, _, name = line.partition(" ")
        if name.strip() == codename:
            return uri.rstrip("/")
    return None


def mirror() -> str:
    """The mirror this machine installs Debian from; ImageError where there is none."""
    codename = host_codename(Path("/etc/os-release").read_text(encoding="utf-8"))
    found = choose_mirror(_run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)"), codename)
    if found is None:
        raise ImageError(
            f"node image: apt knows no repository of this machine's release {codename or '(unknown)'}; "
            "check /etc/apt/sources.list*, run apt-get update, try again"
        )
    return found


def proxy_options() -> tuple[str, ...]:
    """This machine's proxy settings as apt options; mmdebstrap does not take them over by itself."""
    return select_proxies(_run("apt-config", "dump"))


def select_proxies(dump: str) -> tuple[str, ...]:
    """The lines of ``apt-config dump`` about proxies and certificates that have a value."""
    wanted = re.compile(r'^Acquire::(?:http|https)::(?:[^ ]*Proxy[^ ]*|CaInfo|Verify-[^ ]*) "[^"]+";$', re.IGNORECASE)
    return tuple(line for line in dump.splitlines() if wanted.match(line))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except FileNotFoundError as error:
        raise ImageError(f"node image: {command[0]} is missing; images are built on Debian 12 or 13") from error
    except subprocess.SubprocessError as error:
        raise ImageError(f"node image: {' '.join(command[:2])} failed ({error}); repair apt, then try again") from error
    return done.stdout
