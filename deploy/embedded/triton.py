"""Starts the real tritonserver of the embedded profile in this process's place.

    python -m deploy.embedded.triton

Takes `features.settings.Settings`: the model repository, and Triton's gRPC address with port P (HTTP is P-1, metrics
P+1, all on that host). No model is loaded at the start; the gateway loads what the release table says. The binary comes
from nvidia-pytriton's wheel, unpacked by `make setup`; TorchScript is run by `backend/pytorch/model.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import psutil

from deploy.embedded import checks
from features.settings import ROOT, Settings, load_settings

RUNTIME = ROOT / ".triton"
SERVER = RUNTIME / "pytriton" / "tritonserver"
"""The part of the runtime that is Triton's own."""
BACKEND = Path(__file__).parent / "backend" / "pytorch" / "model.py"
STUB = "triton_python_backend_stub"
LOAD_S = 100
"""Time for a version to load; the gateway waits for 120 s."""


def ports(settings: Settings) -> dict[str, tuple[str, int]]:
    """Host and port of each of Triton's doors.

    Raises:
        SystemExit: the address cannot be read.
    """
    host, grpc = checks.door("BRAID_TRITON_ADDRESS", settings.triton_address, "127.0.0.1:8001", 2, 65534)
    return {"grpc": (host, grpc), "http": (host, grpc - 1), "metrics": (host, grpc + 1)}


def requirements(settings: Settings) -> list[checks.Check]:
    """What Triton needs of this machine."""
    return [
        checks.architecture(),
        checks.glibc(),
        checks.runtime(RUNTIME),
        checks.python_stub(SERVER / "python_backend_stubs"),
        checks.python_library(),
        checks.shell(),
        checks.writable(settings.home),
        *([] if settings.model_repository.exists() else [_new_repository(settings.model_repository)]),
        checks.disk(settings.home),
        checks.shared_memory(),
        *(
            checks.port(f"Triton's {name} port", f"{host}:{number}", "BRAID_TRITON_ADDRESS")
            for name, (host, number) in ports(settings).items()
        ),
    ]


def _new_repository(folder: Path) -> checks.Check:
    """Whether a model repository that is not there can be made; one that is there is only read."""
    return checks.writable(folder, "model repository", "BRAID_MODEL_REPOSITORY")


def shared_memory_prefix(settings: Settings) -> str:
    """The beginning of the names of this shop's regions in /dev/shm."""
    return f"braid_{hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:12]}_"


def clear_leftovers(settings: Settings) -> None:
    """Ends stubs that outlived a killed server and removes their shared memory; only while this shop's Triton is down.

    A stub carries the name of its region on its command line.
    """
    prefix = shared_memory_prefix(settings)
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if arguments and STUB in arguments[0] and any(prefix in argument for argument in arguments):
            process.kill()
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def build_backends(target: Path) -> Path:
    """Makes the backend directory: Triton's Python backend with the stub for this Python, and ours named `pytorch`.

    The library is copied, because Triton refuses a link for backends written in Python; the stub is linked, because a
    copy loses the path to its own libraries.
    """
    shutil.rmtree(target, ignore_errors=True)
    python = target / "python"
    python.mkdir(parents=True)
    shutil.copyfile(SERVER / "backends/python/libtriton_python.so", python / "libtriton_python.so")
    (python / "triton_python_backend_utils.py").symlink_to(SERVER / "backends/python/triton_python_backend_utils.py")
    minor = "{}.{}".format(*sys.version_info[:2])
    stub = SERVER / "python_backend_stubs" / minor / STUB
    (python / STUB).symlink_to(stub)
    (target / "pytorch").mkdir()
    shutil.copyfile(BACKEND, target / "pytorch" / BACKEND.name)
    return target


def command(settings: Settings, backends: Path) -> list[str]:
    """tritonserver's command line."""
    doors: Iterable[str] = (
        flag
        for name, (host, number) in ports(settings).items()
        for flag in (f"--{name}-address={host}", f"--{name}-port={number}")
    )
    return [
        str(SERVER / "bin" / "tritonserver"),
        f"--model-repository={settings.model_repository}",
        f"--backend-directory={backends}",
        f"--cache-directory={SERVER / 'caches'}",
        "--model-control-mode=explicit",
        *doors,
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        "--disable-auto-complete-config",  # start-up 1.6 s instead of 4.5 s; config.pbtxt must be complete
        "--strict-readiness=false",
        "--exit-on-error=false",
        "--exit-timeout-secs=30",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(settings)}",
        f"--backend-config=python,stub-timeout-seconds={LOAD_S}",  # on busy cores a load gives way, and takes longer
    ]


def environment() -> dict[str, str]:
    """PATH decides which site-packages the stub imports; LD_LIBRARY_PATH where it finds libpython."""
    libraries = [sysconfig.get_config_var("LIBDIR") or "", os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def main() -> None:
    """Checks the machine, builds the backend directory, becomes tritonserver."""
    settings = load_settings()
    if failed := checks.failed(requirements(settings)):
        raise SystemExit("\n".join(check.line() for check in failed))
    settings.model_repository.mkdir(parents=True, exist_ok=True)
    clear_leftovers(settings)
    backends = build_backends(settings.home.resolve() / "run" / "backends")
    arguments = command(settings, backends)
    os.execve(arguments[0], arguments, environment())


if __name__ == "__main__":
    main()
