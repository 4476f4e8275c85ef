"""One encoder for both strands: a shopper's events in time order in, the state after each event out.

Pre-norm Transformer layers (SASRec, arXiv 1808.09781, with the norm before each part), or a GRU or an LSTM under one
attention layer that reads its states (NARM, arXiv 1711.04725). Nothing knows absolute positions: a head puts a learned
penalty on distance, in events and in time, so a state does not depend on where a stretch of history was cut.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.schema import EVENT_TYPE_CODES
from training.config import ModelConfig

TIME_BUCKETS = 32
"""Bucket b holds 2^b - 1 to 2^(b+1) - 2 seconds; the last ones are centuries."""

BLOCK_EVENTS = 128
"""An event reads those of its own block and of the one before: cost grows with length, not with its square."""


def time_bucket(seconds: Tensor, buckets: int = TIME_BUCKETS) -> Tensor:
    """int64 bucket of an age or a gap in seconds."""
    return torch.log2(seconds.clamp(min=0.0) + 1.0).long().clamp(max=buckets - 1)


class EventEmbedding(nn.Module):
    """An item's vector plus what happened and how long after the event before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.time = config.time
        self.types = nn.Embedding(EVENT_TYPE_CODES, config.dim, padding_idx=0)
        self.gaps = nn.Embedding(TIME_BUCKETS, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.types.weight, std=0.5 * config.dim**-0.5)
        nn.init.normal_(self.gaps.weight, std=0.2 * config.dim**-0.5)
        with torch.no_grad():
            self.types.weight[0] = 0.0

    def forward(self, vectors: Tensor, types: Tensor, gaps: Tensor) -> Tensor:
        """(B, L, D) from item vectors (B, L, D), types (B, L) and gaps (B, L) in seconds."""
        events = vectors + self.types(types)
        if self.time:
            events = events + self.gaps(time_bucket(gaps))
        dropped: Tensor = self.dropout(events)
        return dropped


class Attention(nn.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.width, self.time = config.heads, config.dim // config.heads, config.time
        self.block = BLOCK_EVENTS
        self.norm = nn.LayerNorm(config.dim)
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.distance = nn.Parameter(torch.linspace(-3.0, 0.0, config.heads))  # penalty a head puts on log distance
        self.elapsed = nn.Parameter(torch.full((config.heads,), -4.0))  # the same on log seconds
        self.feed = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, 2 * config.dim),
            nn.GELU(),
            nn.Linear(2 * config.dim, config.dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, events: Tensor, times: Tensor) -> Tensor:
        """States (B, L, D) of events (B, L, D), each from those up to its own. times: (B, L) seconds, ascending."""
        batch, length, dim = events.shape
        block = min(length, self.block)
        blocks = (length + block - 1) // block
        behind = blocks * block - length
        if behind > 0:
            events = functional.pad(events, [0, 0, 0, behind])
            times = functional.pad(times, [0, behind])
        normed = self.norm(events)
        query = self.query(normed).reshape(batch * blocks, block, dim)
        pair, key_times, before = self.key_value(normed), times, 0
        if blocks > 1:  # each block with the one before it; the first has padding there
            before = block
            pair = _with_block_before(pair.reshape(batch, blocks, block, 2 * dim))
            key_times = _with_block_before(times.reshape(batch, blocks, block, 1)).squeeze(-1)
        keys = before + block
        at = torch.arange(block, device=events.device)
        apart = at.unsqueeze(1) + before - torch.arange(keys, device=events.device).unsqueeze(0)  # (block, keys)
        hidden = (apart < 0).unsqueeze(0)
        if blocks > 1:
            first = torch.arange(batch * blocks, device=events.device) % blocks == 0
            padding = torch.arange(keys, device=events.device) < before
            hidden = hidden | (first.reshape(-1, 1, 1) & padding.reshape(1, 1, -1))
        read, _ = self.read(
            query,
            pair.reshape(batch * blocks, keys, 2 * dim),
            apart.clamp(min=0).float().log1p().unsqueeze(0),
            times.reshape(batch * blocks, block),
            key_times.reshape(batch * blocks, keys),
            hidden,
        )
        return self.after(events, read.reshape(batch, blocks * block, dim))[:, :length]

    def newest(self, events: Tensor, times: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The state after event `last` (B,) alone, (B, D), and how much it read of each event, (B, L)."""
        length = events.shape[1]
        normed = self.norm(events)
        row = torch.arange(events.shape[0], device=events.device)
        apart = last.unsqueeze(1) - torch.arange(length, device=events.device).unsqueeze(0)  # (B, L)
        read, weights = self.read(
            self.query(normed[row, last]).unsqueeze(1),
            self.key_value(normed),
            apart.clamp(min=0).float().log1p().unsqueeze(1),
            times[row, last].unsqueeze(1),
            times,
            (apart < 0).unsqueeze(1),
        )
        return self.after(events[row, last], read.squeeze(1)), weights

    def read(
        self, query: Tensor, pair: Tensor, log_apart: Tensor, times: Tensor, key_times: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the queries (B, Q, D) read of keys and values (B, K, 2 D): (B, Q, D); weights of the last query (B, K).

        Args:
            log_apart: broadcastable to (B, Q, K). times: (B, Q). key_times: (B, K).
            hidden: bool, broadcastable to (B, Q, K), True where a query must not look.
        """
        batch, queries, dim = query.shape
        keys = pair.shape[1]
        asked = query.reshape(batch, queries, self.heads, self.width).transpose(1, 2)
        given = pair.reshape(batch, keys, 2, self.heads, self.width).permute(2, 0, 3, 1, 4)  # (2, B, H, K, W)
        scores = asked @ given[0].transpose(2, 3) * (1.0 / math.sqrt(float(self.width)))
        scores = scores - functional.softplus(self.distance).reshape(1, -1, 1, 1) * log_apart.unsqueeze(1)
        if self.time:
            elapsed = (times.unsqueeze(2) - key_times.unsqueeze(1)).clamp(min=0.0).log1p()
            scores = scores - functional.softplus(self.elapsed).reshape(1, -1, 1, 1) * elapsed.unsqueeze(1)
        weights = torch.softmax(scores.masked_fill(hidden.unsqueeze(1), -1e9), dim=-1)
        read = (weights @ given[1]).transpose(1, 2).reshape(batch, queries, dim)
        return read, weights[:, :, -1].mean(dim=1)

    def after(self, events: Tensor, read: Tensor) -> Tensor:
        """The layer's second half: what was read is taken in, then the feed-forward part."""
        states = events + self.dropout(self.out(read))
        fed: Tensor = states + self.dropout(self.feed(states))
        return fed


class Recurrent(nn.Module):
    """A pre-norm GRU or LSTM layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        kind = nn.GRU if config.encoder == "gru" else nn.LSTM
        self.cells = kind(config.dim, config.dim, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, events: Tensor, times: Tensor) -> Tensor:
        """States (B, L, D); times are not read."""
        states: Tensor = events + self.dropout(self.cells(self.norm(events))[0])
        return states


class Encoder(nn.Module):
    """Rows are left-aligned; what lies behind a row's last event is never read by the states before it."""

    def __init__(self, config: ModelConfig, layers: int) -> None:
        super().__init__()
        recurrent = config.encoder != "transformer"
        self.embedding = EventEmbedding(config)
        below = (
            [Recurrent(config) for _ in range(layers)] if recurrent else [Attention(config) for _ in range(layers - 1)]
        )
        self.below = nn.ModuleList(below)
        self.top = Attention(config)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, vectors: Tensor, types: Tensor, gaps: Tensor) -> Tensor:
        """The state after each event, (B, L, D).

        Args:
            vectors: (B, L, D) item vectors. types: (B, L), 0 behind a row's end.
            gaps: (B, L) seconds since the event before, 0 at a row's first.
        """
        states, times = self.lower(vectors, types, gaps)
        normed: Tensor = self.norm(self.top(states, times))
        return normed

    def newest(self, vectors: Tensor, types: Tensor, gaps: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The state after event `last` (B,) of each row, (B, D), and how much it read of each event, (B, L).

        The top layer is computed for that event alone.
        """
        states, times = self.lower(vectors, types, gaps)
        state, weights = self.top.newest(states, times, last)
        return self.norm(state), weights

    def lower(self, vectors: Tensor, types: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """States below the top layer, and the time of each event since the row's first, in seconds."""
        states = self.embedding(vectors, types, gaps)
        times = gaps.cumsum(dim=1)
        for layer in self.below:
            states = layer(states, times)
        return states, times


def _with_block_before(blocks: Tensor) -> Tensor:
    """(B, n, 2 C, W) from (B, n, C, W): every block behind the one before it, zeros before the first."""
    shifted = functional.pad(blocks[:, :-1], [0, 0, 0, 0, 1, 0])
    return torch.cat([shifted, blocks], dim=2)
