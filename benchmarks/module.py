"""The served module by itself, on a processor or a GPU: how long a batch takes, beside the limit of the memory.

    python -m benchmarks.module [--device cuda] [--items 10000 --items 1000000] [--batch 1 --batch 64]

The TorchScript module of a release of random weights, its item table blown up to each size, without Triton. `module`
is the whole of it in fp32, as it is served: both strands, scores of all items, the best 256. `scoring` is the product
with the item table alone, in fp32 and in bf16. The product must read the whole table once, whatever the batch, so its
limit for small batches is the memory: the share is the table's bytes for each second, over what a copy moves (read and
written). With `mask` every item is allowed by its bit, as where something is filtered. On a GPU that is replayed as a
CUDA graph as well, without launching kernel by kernel; without a mask the module asks the GPU whether there is one,
which cannot be captured. What would need more than `--most-gib` for its scores is left out. Figures go to
benchmarks/results/.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks import record
from benchmarks.random_release import made_up_items, random_model
from features import schema
from features.terminal import console
from training.export import FusionServing, load_module, save_module
from training.fusion import FusionModel

GIB = 1 << 30
MODULE, MASKED, GRAPH, SCORING = "module", "with a mask", "the same as a CUDA graph", "scoring"
ITEMS = (10_000, 100_000, 1_000_000)
BATCHES = (1, 16, 64, 512, 4_096)
SEED_ITEMS = 1_000
"""Of the release whose table is blown up."""
ROUNDS = 3
COPIED_BYTES = 64 << 20
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one batch: the quickest of some runs."""

    what: str
    dtype: str
    items: int
    batch: int
    ms: float
    share_of_bandwidth: float

    @property
    def requests_per_s(self) -> float:
        """As many batches as fit into a second, one after the other."""
        return 1000 * self.batch / self.ms


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    items: Annotated[list[int] | None, typer.Option(min=SEED_ITEMS, help=f"Sizes of the catalogue; {ITEMS}.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help=f"Requests at once; {BATCHES}.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="On a processor; the served module has one.")] = 1,
    most_gib: Annotated[float, typer.Option(min=0.1, help="Largest matrix of scores.")] = 1.0,
) -> None:
    """The table."""
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: this torch has no GPU; requirements.lock names a version whose CUDA build has")
    torch.set_num_threads(threads)
    place = torch.device(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"processor, {threads} threads"
    copied = copy_bytes_per_s(place)
    speeds = []
    with torch.inference_mode():
        for count in items or ITEMS:
            sizes = [size for size in batch or BATCHES if 4 * size * count <= most_gib * GIB]
            serving = blown_up(count)
            module = exported(serving, place)
            speeds += [it for size in sizes for it in measured(serving, module, size, place, copied)]
    show(speeds, name, copied)
    figures = {"device": name, "copied_bytes_per_s": copied, "torch": torch.__version__}
    console.print(str(record.write("module", figures | {"speeds": [asdict(speed) for speed in speeds]})))


def blown_up(items: int) -> FusionServing:
    """A served module whose item table has this many rows."""
    model = random_model(list(made_up_items(SEED_ITEMS))).model
    serving = FusionServing(model)
    for owner, buffer, rows in (
        (serving.table, "vectors", items + 1),
        (serving.table, "bias", items),
        (serving.table, "repeat_features", items + 1),
        (model.repeat, "trends", items),
    ):
        shape = getattr(owner, buffer).shape
        setattr(owner, buffer, torch.randn(rows, *shape[1:]))
    return serving.eval()


def measured(
    serving: FusionServing, module: torch.jit.ScriptModule, batch: int, place: torch.device, copied: float
) -> Iterator[Speed]:
    """The module and the product alone."""
    items = serving.table.bias.shape[0]

    def speed(what: str, dtype: str, run: Callable[[], object], table: Tensor) -> Speed:
        seconds = quickest_s(run, place)
        share = table.nbytes / seconds / copied
        return Speed(what=what, dtype=dtype, items=items, batch=batch, ms=1000 * seconds, share_of_bandwidth=share)

    inputs = random_inputs(serving.model, items, batch, place)
    table = serving.table.vectors.to(place)[:items]
    yield speed(MODULE, "fp32", lambda: module(*inputs), table)
    mask = torch.full((batch, (items + 7) // 8), 255, dtype=torch.uint8, device=place)
    named = zip(schema.FUSION_INPUTS, inputs, strict=True)
    masked = [mask if tensor.name == "allowed" else values for tensor, values in named]
    yield speed(MASKED, "fp32", lambda: module(*masked), table)
    if place.type == "cuda":
        yield speed(GRAPH, "fp32", captured(module, masked), table)
    interest = torch.randn(batch, table.shape[1], device=place)
    for name, dtype in DTYPES.items():
        left, right = interest.to(dtype), table.to(dtype)
        yield speed(SCORING, name, lambda left=left, right=right: left @ right.t(), right)  # type: ignore[misc]


def captured(module: torch.jit.ScriptModule, inputs: list[Tensor]) -> Callable[[], object]:
    """Replays the module's kernels on these inputs as one graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(*inputs)
    return graph.replay


def exported(serving: FusionServing, place: torch.device) -> torch.jit.ScriptModule:
    """The module as Triton would load it."""
    with TemporaryDirectory() as folder:
        file = Path(folder, schema.MODULE_FILE)
        save_module(serving, file)
        return load_module(file, place)


def random_inputs(model: FusionModel, items: int, batch: int, place: torch.device) -> list[Tensor]:
    """Full windows, every item allowed, no candidates."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"long_interest": model.tower()[0].shape[1], "allowed": 1, "candidates": 1}
    found = []
    for tensor in schema.FUSION_INPUTS:
        shape = [batch, *(sizes[tensor.name] if size == -1 else size for size in tensor.dims)]
        if tensor.name in ("recent_items", "own_items"):
            values = torch.randint(0, items, shape, generator=draw, dtype=torch.int32)
        elif tensor.dtype == "FP32":
            values = torch.rand(shape, generator=draw)
        else:
            fill = {"recent_types": 1, "candidates": schema.PADDING}.get(tensor.name, 0)
            values = torch.full(shape, fill, dtype=torch.uint8 if tensor.dtype == "UINT8" else torch.int32)
        found.append(values.to(place))
    return found


def copy_bytes_per_s(place: torch.device) -> float:
    """What a copy of memory moves, read and written."""
    source = torch.ones(COPIED_BYTES // 4, device=place)
    target = torch.empty_like(source)
    return 2 * source.nbytes / quickest_s(lambda: target.copy_(source), place)


def quickest_s(run: Callable[[], object], place: torch.device) -> float:
    """Seconds of a run in the quickest round, after the two runs in which TorchScript compiles.

    One thread of a processor is timed by the time that it has the processor: what else the machine does only adds.
    That clock ticks as coarsely as ten milliseconds on some machines, so a round is as many runs as take 0.2 s.
    """

    def once() -> None:
        run()
        if place.type == "cuda":
            torch.cuda.synchronize()

    once()
    once()
    one_thread = place.type == "cpu" and torch.get_num_threads() == 1
    timer = timeit.Timer(once, timer=time.thread_time if one_thread else time.perf_counter)
    runs, seconds = timer.autorange()
    return min(seconds, *timer.repeat(ROUNDS - 1, runs)) / runs


def show(speeds: list[Speed], name: str, copied: float) -> None:
    """The table."""
    table = Table("what", "items", "batch", "ms", "requests/s", "of the memory's bandwidth", title=name)
    for it in speeds:
        row = (f"{it.what} {it.dtype}", f"{it.items:,}", f"{it.batch:,}", f"{it.ms:.2f}", f"{it.requests_per_s:,.0f}")
        table.add_row(*row, f"{it.share_of_bandwidth:.0%}")
    console.print(table)
    console.print(f"A copy moves {copied / 1e9:.1f} GB/s.")


if __name__ == "__main__":
    typer.run(main)
