"""A gateway that reads no features: what the feature store costs is what it saves.

    python -m benchmarks.serving.featureless

It is `python -m server`, but of every shopper it knows what the request says.
"""

from __future__ import annotations

from collections.abc import Sequence

import server.__main__
from features.inputs.shopper import ShopperFeatures
from server.deadline import Deadline
from server.hydrate.feature_reader import FeatureReader


async def _nothing(_: FeatureReader, keys: Sequence[str], release: int, deadline: Deadline) -> list[ShopperFeatures]:
    return [ShopperFeatures() for _ in keys]


if __name__ == "__main__":
    setattr(FeatureReader, FeatureReader.read.__name__, _nothing)
    server.__main__.app(standalone_mode=False)
