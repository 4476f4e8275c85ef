"""The two strands: a causal Transformer over months of history, and one over the last events, read from the newest.

Both are pre-norm (SASRec, arXiv 1808.09781, with the norm before each part) and know the order of events by a learned
penalty on distance and by time buckets, so a vector does not depend on where in a padded row it was computed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.schema import EVENT_TYPE_CODES

TIME_BUCKETS = 32
"""Bucket b holds 2^b - 1 to 2^(b+1) - 2 seconds; the last ones are centuries."""


def time_bucket(seconds: Tensor, buckets: int = TIME_BUCKETS) -> Tensor:
    """int64 bucket of an age or a gap in seconds."""
    return torch.log2(seconds.clamp(min=0.0) + 1.0).long().clamp(max=buckets - 1)


class EventEmbedding(nn.Module):
    """An item's vector plus what happened and when, normalised."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.types = nn.Embedding(EVENT_TYPE_CODES, dim, padding_idx=0)
        self.times = nn.Embedding(TIME_BUCKETS, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.types.weight, std=dim**-0.5)
        nn.init.normal_(self.times.weight, std=0.5 * dim**-0.5)

    def forward(self, vectors: Tensor, types: Tensor, seconds: Tensor) -> Tensor:
        """(B, L, D) from item vectors (B, L, D), types (B, L) and ages or gaps in seconds (B, L)."""
        events: Tensor = self.dropout(vectors + self.types(types) + self.times(time_bucket(seconds)))
        return events


class Block(nn.Module):
    """One pre-norm Transformer layer. `queries` may be fewer than the events: the last ones alone."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.width = dim // heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.distance = nn.Parameter(torch.linspace(-3.0, 0.0, heads))  # penalty a head puts on log distance
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, events: Tensor, hidden: Tensor, queries: int) -> tuple[Tensor, Tensor]:
        """The new states of the last `queries` events (B, Q, D), and the attention of their last one (B, L).

        Args:
            events: (B, L, D).
            hidden: bool, broadcastable to (B, 1, Q, L): True where a query must not look.
        """
        batch, length, dim = events.shape
        normed = self.norm(events)
        query = self.query(normed[:, length - queries :]).reshape(batch, queries, self.heads, self.width)
        pair = self.key_value(normed).reshape(batch, length, 2, self.heads, self.width)
        scores = torch.einsum("bqhw,bkhw->bhqk", query, pair[:, :, 0]) / self.width**0.5
        at = torch.arange(length, device=events.device)
        apart = (at[length - queries :].unsqueeze(1) - at.unsqueeze(0)).abs().float().log1p()  # (Q, L)
        penalty = functional.softplus(self.distance).reshape(1, -1, 1, 1) * apart
        scores = (scores - penalty).masked_fill(hidden, -1e9)
        weights = torch.softmax(scores, dim=-1)
        read = torch.einsum("bhqk,bkhw->bqhw", weights, pair[:, :, 1]).reshape(batch, queries, dim)
        states = events[:, length - queries :] + self.dropout(self.out(read))
        return states + self.dropout(self.feed(states)), weights[:, :, -1].mean(dim=1)


class LongEncoder(nn.Module):
    """Reads a history once; the state at each event is the long-term vector of a job that ran right after it."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = EventEmbedding(dim, dropout)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor, types: Tensor, gaps: Tensor) -> Tensor:
        """(B, L, D) states, each from the events up to its own.

        Args:
            vectors: (B, L, D) item vectors, left-aligned; what lies behind a row's end is never read.
            types: (B, L) event types. gaps: (B, L) seconds since the event before, 0 at the first.
        """
        length = types.shape[1]
        states = self.embedding(vectors, types, gaps)
        hidden = torch.ones(length, length, dtype=torch.bool, device=types.device).triu(1)
        for block in self.blocks:
            states, _ = block(states, hidden, length)
        normed: Tensor = self.norm(states)
        return normed


class ShortEncoder(nn.Module):
    """Reads the last events as they stand at the moment of a request."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = EventEmbedding(dim, dropout)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers - 1)])
        self.reader = Block(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor, types: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
        """The short-term vector (B, D), zero without events, and the weight of each event (B, T).

        Args:
            vectors: (B, T, D) item vectors, right-aligned. types: (B, T), 0 at padding. ages: (B, T) seconds.
        """
        length = types.shape[1]
        absent = types == 0  # (B, T)
        hidden = absent.unsqueeze(1).unsqueeze(1)  # (B, 1, 1, T)
        states = self.embedding(vectors, types, ages)
        for block in self.blocks:
            states, _ = block(states, hidden, length)
        last, weights = self.reader(states, hidden, 1)
        some = (~absent[:, -1:]).float()  # right-aligned: no last event, no event
        return self.norm(last[:, 0]) * some, weights.masked_fill(absent, 0.0) * some
