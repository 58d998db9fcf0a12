"""What goes into the base layer of a node image, as data. Pure: the builder (base.py) acts on it.

Debian 13, with criu and etcd from unstable because older ones do not do the job (criu < 4.2 cannot dump inet sockets on
kernels >= 6.16, etcd < 3.5.30 has holes in its access control). Everything that changes the tree is in ``text()``, and
its digest is the layer's name; the mirror is not, as the packages are signed and the same everywhere.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SUITE = "trixie"
NEWER = "sid"
PYTHON = "3.13"  # the suite's
CONSTRAINTS = "constraints.txt"
DEPENDENCIES = "usr/lib/mx/deps"

PACKAGES = (
    "python3",
    "python3-numpy",
    "iproute2",
    "iputils-ping",
    "nftables",
    "openssl",
    "procps",
    "psmisc",
    "util-linux",
    "criu",
    "etcd-server",
    "etcd-client",
)
# libnl: without these three, criu from unstable does not resolve over the stable suite.
FROM_NEWER = (
    "criu",
    "libcompel1",
    "libnet9",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnl-genl-3-200",
    "etcd-server",
    "etcd-client",
)
REQUIREMENTS = (  # with their own requirements: they are installed without a resolver, so that only the pins decide
    "annotated-types",
    "grpcio",
    "protobuf",
    "psutil",
    "pydantic",
    "pydantic-core",
    "pyyaml",
    "tenacity",
    "typing-extensions",
    "typing-inspection",
)
IMPORTS = ("google.protobuf", "grpc", "numpy", "psutil", "pydantic", "tenacity", "yaml")
LEAST_VERSIONS = {"criu": (4, 2), "etcd": (3, 5, 30)}
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# What the build copies from the building machine (a node gets its own), and what tells when and how it was made.
HOST_TRACES = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/log/*.log",
    "var/log/apt/*",
)
# glibc versions of wheels that run on the suite (2.41), newest first, then the old names.
_GLIBC = (41, 39, 38, 36, 35, 34, 31, 28, 27, 24, 17)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One base layer. ``machine`` as uname says it, ``pins`` one ``name==version`` for each of REQUIREMENTS."""

    machine: str
    pins: tuple[str, ...]
    extra: tuple[str, ...] = ()
    """Debian packages beside PACKAGES, sorted."""

    def text(self) -> str:
        """Everything the tree depends on, one fact a line."""
        facts: Mapping[str, tuple[str, ...]] = {
            "recipe": ("2",),
            "machine": (self.machine,),
            "suite": (SUITE, NEWER, PYTHON),
            "packages": PACKAGES,
            "newer": FROM_NEWER,
            "pins": self.pins,
            "left-out": LEFT_OUT,
        }
        wished = {"extra": self.extra} if self.extra else {}  # a layer without them keeps its name
        return "".join(f"{name}: {' '.join(values)}\n" for name, values in {**facts, **wished}.items())

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that name the layer."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:12]


def preferences() -> str:
    """apt's pins: nothing from the newer suite but what is listed."""
    return (
        f"Package: *\nPin: release n={NEWER}\nPin-Priority: 100\n\n"
        f"Package: {' '.join(FROM_NEWER)}\nPin: release n={NEWER}\nPin-Priority: 600\n"
    )


def sources(mirror: str) -> tuple[str, str]:
    """apt's two source lines. A mirror's copy of unstable can be past its Valid-Until, hence the option."""
    return f"deb {mirror} {SUITE} main", f"deb [check-valid-until=no] {mirror} {NEWER} main"


def check_packages(names: Iterable[str]) -> tuple[str, ...]:
    """The packages beside the usual ones, sorted, each once; ValueError naming what cannot be a package's name."""
    wished = sorted({name.strip() for name in names} - {*PACKAGES, ""})
    for name in wished:
        if not _NAME.fullmatch(name):
            raise ValueError(f'"{name}" is no name of a Debian package')
    return tuple(wished)


def mmdebstrap(
    root: str, mirror: str, preferences_file: str, apt_options: tuple[str, ...], extra: tuple[str, ...] = ()
) -> list[str]:
    """The command that makes the tree at ``root``."""
    into_tree = f'mkdir -p "$1/etc/apt/preferences.d" && cp \'{preferences_file}\' "$1/etc/apt/preferences.d/mx"'
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        f"--include={','.join((*PACKAGES, *extra))}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={option}" for option in apt_options),
        f"--setup-hook={into_tree}",
        *_HOOKS,
        SUITE,
        root,
        *sources(mirror),
    ]


def pip_arguments(target: str, machine: str, pins: tuple[str, ...]) -> list[str]:
    """pip's arguments to fetch ``pins`` for the image's Python, whatever Python runs pip."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}"]
    return [
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={PYTHON}",
        *(f"--platform={tag}" for tag in tags),
        f"--target={target}",
        *pins,
    ]


def select_pins(constraints: str) -> tuple[str, ...]:
    """The lines of a constraints file for REQUIREMENTS; ValueError naming the first that is not pinned."""
    pinned = {_normal(name): f"{_normal(name)}=={version}" for name, version in _PIN.findall(constraints)}
    for name in REQUIREMENTS:
        if name not in pinned:
            raise ValueError(f"constraints.txt has no line '{name}==VERSION'; add one")
    return tuple(pinned[name] for name in REQUIREMENTS)


# Java's packages put links there, and fail without it.
_HOOKS = ('--setup-hook=mkdir -p "$1/usr/share/man/man1"',)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.MULTILINE)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of(output: str) -> tuple[int, ...]:
    """The first dotted number in what ``PROGRAM --version`` printed; () when there is none."""
    match = re.search(r"\d+(?:\.\d+)+", output)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
