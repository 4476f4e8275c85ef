"""The shoppers that the bench puts into a store are there, each under their own key, with every row."""

from __future__ import annotations

from benchmarks.live_shop import fresh_shop
from benchmarks.online_users import OWN_ITEMS, PATTERNS, grown, name, write_patterns
from benchmarks.random_release import fill_and_publish
from features import store
from features.schema import RECENT_EVENTS, shopper_key
from server.deadline import Deadline
from server.hydrate.feature_reader import FeatureReader


async def test_a_grown_store_knows_its_last_shopper_and_nobody_beyond() -> None:
    size = PATTERNS + 100
    with fresh_shop({}) as shop:
        store.apply(shop.settings)
        fill_and_publish(shop.settings, 1_000)
        write_patterns(shop.settings, 1_000)
        reader = FeatureReader(grown(shop, size), 5.0)
        assert await reader.serves(1)
        keys = [shopper_key(name(number), None) for number in (0, size - 1, size)]
        first, last, nobody = await reader.read(keys, 1, Deadline())
        reader.close()
    for row in (first, last):
        assert len(row.recent) == RECENT_EVENTS and len(row.purchases) == OWN_ITEMS
        assert row.interest is not None and row.profile.country == "GB"
    assert first.recent != last.recent
    assert not nobody.recent and nobody.interest is None
