"""Prepares a fresh clone: .venv with the locked packages, the Triton runtime, the code generated from proto/.

    python3 deploy/setup.py            (`make setup` takes the Python that find_python.sh prints)

The standard library alone. Each stage is skipped when what it was made from is unchanged, so a second run is quick.
TORCH_INDEX_URL names the package index for torch; without it PyTorch's public CPU index is taken where it answers
within three seconds, else the indexes that pip is configured with.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deploy.embedded import checks  # noqa: E402  (after the path is set: nothing is installed yet)

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
"""There from the moment that the environment is whole."""
LOCK = ROOT / "requirements.lock"
RUNTIME = ROOT / ".triton"
RUNTIME_WHEEL = "nvidia-pytriton==0.7.0"
PROTO = ROOT / "proto"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SUPPORTED = ((3, 10), (3, 13))
NEEDED_DISK_BYTES = 4 << 30
"""Packages, runtime and pip's temporary files, and room for the demo."""


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def requirements() -> list[checks.Check]:
    """What set-up needs of this machine."""
    return [
        python_version(),
        venv_module(),
        checks.architecture(),
        checks.glibc(),
        checks.shell(),
        checks.python_library(),
        checks.disk(ROOT, NEEDED_DISK_BYTES if not PYTHON.exists() else checks.RUNTIME_DISK_BYTES, "the clone"),
    ]


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> checks.Check:
    """This Python is one that the lock file was made for."""
    found = "{}.{}".format(*version)
    remedy = "Python 3.10 to 3.13 is needed: sudo apt-get install python3 python3-venv, or make setup PYTHON=python3.11"
    return checks.Check("Python", SUPPORTED[0] <= version <= SUPPORTED[1], found, remedy)


def venv_module(needed: tuple[str, ...] = ("venv", "ensurepip")) -> checks.Check:
    """Debian and Ubuntu keep venv's other half in a package of its own."""
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    minor = "{}.{}".format(*sys.version_info[:2])
    remedy = f"sudo apt-get install python{minor}-venv"
    return checks.Check("venv", not missing, f"no module {', '.join(missing)}" if missing else "there", remedy)


def built_for_speed() -> bool:
    """Whether this Python was compiled with profile-guided optimisation, as those of distributions are and say nowhere.

    A gateway on one that was not answers less by a tenth or more.
    """
    said = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return said or Path(sysconfig.get_config_var("prefix")) == Path("/usr")


def fitness() -> str:
    """`quick`, `usable` or `none`: what this Python is for set-up."""
    if not (python_version().ok and venv_module().ok and checks.python_library().ok):
        return "none"
    return "quick" if built_for_speed() else "usable"


def make_venv() -> None:
    """A virtual environment of this Python's minor version; one of another version, or half made, is replaced."""
    minor = "python{}.{}".format(*sys.version_info[:2])
    if PYTHON.exists() and (VENV / "lib" / minor).exists() and STAMPS.exists():
        return
    slow = "" if built_for_speed() else ", which was built without --enable-optimizations: one with is quicker"
    print(f"Environment .venv of {sys.executable}{slow}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    STAMPS.mkdir()


def install_packages() -> bool:
    """The locked set into .venv. False: it is there already."""
    stamp = _digest(LOCK)
    if _stamped("packages", stamp):
        return False
    torch = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    index = torch_index()
    print(f"torch from {index or 'the configured indexes'}", flush=True)
    if index:
        _pip("install", "--no-deps", "--index-url", index, torch.split(";")[0].strip())
    _pip("install", "--requirement", str(LOCK))
    site = _output([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(site, "braid.pth").write_text(f"{ROOT}\n{PROTO}\n")  # our packages, from anywhere in this environment
    _stamp("packages", stamp)
    return True


def torch_index() -> str:
    """Where torch comes from; empty for the configured indexes.

    PyPI's torch for Linux is the CUDA build, gigabytes that a machine without GPU has no use for.
    """
    if chosen := os.environ.get("TORCH_INDEX_URL"):
        return chosen
    answered: list[bool] = []
    probe = threading.Thread(target=lambda: answered.append(_answers(f"{CPU_INDEX}/torch/")), daemon=True)
    probe.start()
    probe.join(3)  # a name server that does not answer is not covered by the socket's timeout
    return CPU_INDEX if answered == [True] else ""


def install_runtime() -> bool:
    """Triton from its wheel, without the wheel's Python API and dependencies. False: it is there already."""
    name, _, version = RUNTIME_WHEEL.replace("-", "_").partition("==")
    if (RUNTIME / f"{name}-{version}.dist-info").exists() and checks.runtime(RUNTIME).ok:
        return False
    fresh = RUNTIME.with_name(".triton.new")
    shutil.rmtree(fresh, ignore_errors=True)
    _pip("install", "--no-deps", "--target", str(fresh), RUNTIME_WHEEL)
    for entry in [*fresh.iterdir(), *(fresh / "pytriton").iterdir()]:
        if entry.name not in ("pytriton", "tritonserver", "nvidia_pytriton.libs") and entry.suffix != ".dist-info":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.rmtree(RUNTIME, ignore_errors=True)
    fresh.rename(RUNTIME)
    return True


def generate_stubs() -> bool:
    """Messages, stubs and types of proto/ beside their sources. False: they are there already."""
    sources = sorted(PROTO.rglob("*.proto"))
    stamp = _digest(LOCK, *sources)
    made = [source.with_name(f"{source.stem}_{kind}") for source in sources for kind in ("pb2.py", "pb2_grpc.py")]
    if _stamped("stubs", stamp) and all(path.exists() for path in made):
        return False
    with tempfile.TemporaryDirectory(dir=VENV) as folder:
        flags = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        _run([str(PYTHON), "-m", "grpc_tools.protoc", f"-I{PROTO}", *flags, *map(str, sources)])
        fresh = {path.relative_to(folder) for path in Path(folder).rglob("*_pb2*")}
        for path in fresh:
            os.replace(Path(folder, path), PROTO / path)  # a running program sees the old file or the new one
    for path in [*PROTO.rglob("*_pb2.py*"), *PROTO.rglob("*_pb2_grpc.py")]:
        if path.relative_to(PROTO) not in fresh:
            path.unlink()  # its source is gone
    _stamp("stubs", stamp)
    return True


def main() -> None:
    """Runs the stages, each with its time."""
    if failed := checks.failed(requirements()):
        raise SetupError("\n".join(check.line() for check in failed))
    make_venv()
    stages = (
        ("Python packages", install_packages),
        ("Triton runtime", install_runtime),
        ("gRPC stubs", generate_stubs),
    )
    began = time.monotonic()
    worked = False
    for number, (name, stage) in enumerate(stages, 1):
        started = time.monotonic()
        if stage():
            worked = True
            print(f"[{number}/{len(stages)}] {name}: done in {time.monotonic() - started:.0f} s", flush=True)
    if worked:
        print(f"Set up in {time.monotonic() - began:.0f} s. Next: make demo", flush=True)


def _pip(*arguments: str) -> None:
    flags = ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "on"]
    environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}
    _run([str(PYTHON), "-m", "pip", arguments[0], *flags, *arguments[1:]], environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if code:
        raise SetupError(
            f"`{' '.join(command)}` ended with {code}, its reason is above. Check the network and the disk, "
            "then run make setup again: it goes on where it stopped"
        )


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _stamped(stage: str, value: str) -> bool:
    path = STAMPS / stage
    return path.exists() and path.read_text() == value


def _stamp(stage: str, value: str) -> None:
    (STAMPS / stage).write_text(value)


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted; make setup goes on where it stopped")
