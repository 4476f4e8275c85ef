"""A measurement's shop leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from benchmarks.live_shop import fresh_shop
from deploy.embedded.triton import shared_memory_prefix


def test_shared_memory_of_the_shops_triton_is_gone_at_the_end() -> None:
    with fresh_shop({}) as shop:
        region = Path("/dev/shm", f"{shared_memory_prefix(shop.settings)}made-by-a-model")
        shop.settings.model_repository.mkdir(parents=True)
        shop.start_triton()
        region.write_bytes(b"\0")
    assert not region.exists() and not shop.settings.home.exists()
