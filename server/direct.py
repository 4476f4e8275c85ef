"""What a gRPC channel to a part of the shop is made with: no proxy that the environment names stands in between.

gRPC takes `http_proxy` and `https_proxy` for every address, loopback too, unless `no_proxy` names it.
"""

from __future__ import annotations

from typing import Final

DIRECT: Final = ("grpc.enable_http_proxy", 0)
"""A channel's option."""
