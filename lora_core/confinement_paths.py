"""Which files every confined process may reach, whatever it does: programs, libraries, devices."""

import mimetypes
import os
import site
import sys
from collections.abc import Iterator
from pathlib import Path

# Programs and libraries, and what the C library, OpenSSL and torch read of the system. Not all of
# /etc: it may contain secrets of the service. All of /proc, as a rule for /proc/self would end when
# the kernel forgets that directory; Landlock denies the environment and memory of other processes.
READABLE = (
    *("/usr", "/lib", "/lib64", "/bin", "/nix/store", "/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/resolv.conf"),
    *("/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/crypto-policies", "/etc/ca-certificates"),
    *("/etc/pki/tls/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust"),
    *map(str, mimetypes.knownfiles),  # openpyxl reads them when it is imported
)
WRITABLE = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARY_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONPATH")


def code_directories() -> list[str]:
    """Return the directories of Python, its packages, this package, and other libraries."""
    user_site = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    libraries = [path for name in _LIBRARY_VARIABLES for path in environment_variable_paths(name)]
    return [sys.prefix, sys.base_prefix, str(Path(__file__).parent), *user_site, *libraries]


def importable_directories() -> tuple[str, ...]:
    """Return the directories that Python lists to import from them."""
    return tuple(each for each in sys.path if os.path.isabs(each))


def environment_variable_paths(variable: str) -> list[str]:
    """Return the absolute paths in an environment variable."""
    return [each for each in os.environ.get(variable, "").split(os.pathsep) if os.path.isabs(each)]


def link_targets(directory: Path) -> Iterator[Path]:
    """Yield what the links anywhere in a directory of a base point to.

    The files of a snapshot of the hub are links, and the operator may have linked others.
    """
    yield from (path.resolve() for path in directory.rglob("*") if path.is_symlink())
