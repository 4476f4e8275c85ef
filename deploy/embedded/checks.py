"""What the embedded profile needs of the machine, each as one line: what was found, and what to do about it.

The standard library alone, because set-up runs it before anything is installed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import socket
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
RUNTIME_DISK_BYTES = 500 * MIB
"""Free space that a running shop needs before it starts: databases, Parquet files, logs."""
SHARED_MEMORY_BYTES = 48 * MIB
"""Each model instance takes 1 MiB of shared memory and grows with its batches; Docker's default of 64 MiB is enough."""
OLDEST_GLIBC = (2, 35)


@dataclass(frozen=True)
class Check:
    """One need: what was found, whether that will do, and the remedy where it will not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""

    def line(self) -> str:
        """For a log or a terminal."""
        return f"{self.name}: {self.found}" + ("" if self.ok else f". {self.remedy}")


def architecture(machine: str | None = None) -> Check:
    """Triton's wheel is built for x86-64 alone."""
    machine = machine or platform.machine()
    remedy = "The embedded Triton runs on x86-64 only; on other machines use NVIDIA's container"
    return Check("architecture", machine in ("x86_64", "AMD64") and sys.platform == "linux", machine, remedy)


def glibc(version: str | None = None) -> Check:
    """Triton's wheel asks for glibc 2.35."""
    version = platform.libc_ver()[1] if version is None else version
    parts = tuple(int(part) for part in version.split(".")[:2]) if version else (0, 0)
    remedy = "Triton needs glibc 2.35 or newer: use Debian 12, Ubuntu 22.04 or newer"
    return Check("glibc", parts >= OLDEST_GLIBC, version or "none (musl?)", remedy)


def python_stub(stubs: Path, version: tuple[int, int] | None = None) -> Check:
    """The runtime has a Python stub for each minor version that it can embed."""
    name = "{}.{}".format(*(version or sys.version_info[:2]))
    offered = sorted((entry.name for entry in stubs.glob("3.*")), key=lambda minor: int(minor[2:]))
    supported = [minor for minor in offered if int(minor[2:]) >= 10]
    remedy = f"Triton's runtime embeds {', '.join(supported) or 'none'}: make clean setup PYTHON=python3.11"
    return Check("Python", name in supported, name, remedy)


def python_library(library: str | None = None) -> Check:
    """Triton's stub loads Python as a shared library; Debian and Ubuntu keep it in a package of its own."""
    minor = "{}.{}".format(*sys.version_info[:2])
    if library is None:
        library = f"libpython{minor}.so.1.0"
        if sys.version_info[:2] == (3, 13):  # this one comes with the runtime
            return Check("libpython", True, "in the runtime")
    for path in (os.path.join(sysconfig.get_config_var("LIBDIR") or "", library), library):
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
        return Check("libpython", True, path)
    return Check("libpython", False, f"{library} is missing", f"sudo apt-get install libpython{minor}")


def runtime(folder: Path) -> Check:
    """Triton's runtime is unpacked."""
    binary = folder / "pytriton/tritonserver/bin/tritonserver"
    found = str(folder) if binary.exists() else f"{binary} is missing"
    return Check("Triton runtime", binary.exists(), found, "make setup")


def shell() -> Check:
    """Triton starts its stub through bash."""
    path = shutil.which("bash")
    return Check("bash", path is not None, path or "not found", "sudo apt-get install bash")


def shared_memory(folder: Path = Path("/dev/shm"), needed_bytes: int = SHARED_MEMORY_BYTES) -> Check:
    """Triton and its stubs exchange tensors through shared memory."""
    free = _free_bytes(folder)
    remedy = (
        f"Triton needs {needed_bytes // MIB} MiB free: sudo mount -o remount,size=256m {folder}"
        ", or docker run --shm-size=256m"
    )
    return Check(f"{folder}", free >= needed_bytes, f"{free // MIB} MiB free", remedy)


def disk(folder: Path, needed_bytes: int = RUNTIME_DISK_BYTES, variable: str = "BRAID_HOME") -> Check:
    """There is room where the shop lives."""
    nearest = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = _free_bytes(nearest)
    remedy = f"{needed_bytes // MIB} MiB are needed: free some, or set {variable} to a folder on another disk"
    return Check(f"disk at {folder}", free >= needed_bytes, f"{free // MIB} MiB free", remedy)


def writable(folder: Path, name: str = "home", variable: str = "BRAID_HOME") -> Check:
    """A folder can be made and written."""
    nearest = next(parent for parent in [folder, *folder.parents] if parent.exists())
    ok = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    remedy = f"Make {nearest} writable for this user, or set {variable} to a folder that is"
    return Check(f"{name} {folder}", ok, "writable" if ok else f"{nearest} cannot be written", remedy)


def door(variable: str, address: str, example: str, least: int = 1, most: int = 65535) -> tuple[str, int]:
    """Host and port of an address to serve.

    Raises:
        SystemExit: it cannot be read.
    """
    host, _, number = address.rpartition(":")
    if not host or not number.isdecimal() or not least <= int(number) <= most:
        raise SystemExit(
            f"{variable}={address!r} must be host:port with a port from {least} to {most}, for example {example}"
        )
    return host, int(number)


def port(name: str, address: str, variable: str) -> Check:
    """Nobody else listens on an address that we are to serve."""
    host, _, number = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a closing one is no obstacle
        try:
            probe.bind((host.strip("[]"), int(number)))
        except (UnicodeError, socket.gaierror):
            return Check(f"{name} {address}", False, "this host has no address", f"Set {variable} to another address")
        except OSError as error:
            remedy = f"Stop what listens there (ss -ltnp 'sport = :{number}'), or set {variable} to another address"
            return Check(f"{name} {address}", False, error.strerror or str(error), remedy)
    return Check(f"{name} {address}", True, "free")


def failed(checks: Sequence[Check]) -> list[Check]:
    """Those that will not do."""
    return [check for check in checks if not check.ok]


def _free_bytes(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
