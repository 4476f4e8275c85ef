"""The fusion model: how much of each strand (SLi-Rec's adaptive gate, SDM arXiv 1909.00385), and the score of an item.

score = interest . item vector + item bias + repeat term. The repeat term stands for what a vector cannot say exactly:
this very item, bought so often and so long ago, or looked at a minute ago.
"""

import torch
from torch import Tensor, nn

from features.codes import AGE_CODES, HOUR_CODES, WEEKDAY_CODES, CodeVocabularies
from features.schema import EVENT_TYPE_CODES, OWN_FEATURES
from training.config import ModelConfig
from training.encoders import TIME_BUCKETS, LongEncoder, ShortEncoder, time_bucket
from training.item_tower import ItemTower

SESSION_S = 1800.0
"""Recent events younger than this count as the current session in the gate."""

GATE_SIGNALS = 6
REPEAT_DIM = 8


class Gate(nn.Module):
    """Share of the long strand, from both vectors and how old and how many the events are. Starts at one half."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * dim + GATE_SIGNALS, 32)
        self.out = nn.Linear(32, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, long: Tensor, short: Tensor, signals: Tensor, long_mask: Tensor, short_mask: Tensor) -> Tensor:
        """(B, 1): 0 without the long strand, 1 without the short one."""
        states = torch.tanh(self.hidden(torch.cat([long, short, signals], dim=-1)))
        share = torch.sigmoid(self.out(states))
        return torch.where(short_mask > 0, share, torch.ones_like(share)) * long_mask


class RepeatTerm(nn.Module):
    """What is added to the scores of a shopper's own items and of the items of the recent events."""

    def __init__(self, dim: int, signals: int) -> None:
        super().__init__()
        self.item = nn.Linear(dim, REPEAT_DIM)
        self.own = nn.Sequential(nn.Linear(len(OWN_FEATURES) + REPEAT_DIM + signals, 32), nn.GELU(), nn.Linear(32, 1))
        self.seen_type = nn.Embedding(EVENT_TYPE_CODES, REPEAT_DIM, padding_idx=0)
        self.seen_time = nn.Embedding(TIME_BUCKETS, REPEAT_DIM)
        self.seen = nn.Sequential(nn.Linear(3 * REPEAT_DIM + signals, 32), nn.GELU(), nn.Linear(32, 1))

    def of_own(self, vectors: Tensor, features: Tensor, signals: Tensor) -> Tensor:
        """(B, R) from item vectors (B, R, D), own features (B, R, F) and the gate's signals (B, S)."""
        shared = signals.unsqueeze(1).expand(-1, features.shape[1], -1)
        term: Tensor = self.own(torch.cat([features, self.item(vectors), shared], dim=-1))
        return term.squeeze(-1)

    def of_recent(self, vectors: Tensor, types: Tensor, ages: Tensor, signals: Tensor) -> Tensor:
        """(B, T) from item vectors (B, T, D), types and ages (B, T)."""
        shared = signals.unsqueeze(1).expand(-1, types.shape[1], -1)
        parts = [self.seen_type(types), self.seen_time(time_bucket(ages)), self.item(vectors), shared]
        term: Tensor = self.seen(torch.cat(parts, dim=-1))
        return term.squeeze(-1)


class FusionModel(nn.Module):
    """All of it. Training calls the parts on a batch; `training.export` wraps them for serving."""

    def __init__(self, config: ModelConfig, tower: ItemTower, vocabularies: CodeVocabularies) -> None:
        super().__init__()
        self.tower = tower
        self.long = LongEncoder(config.dim, config.heads, config.long_layers, config.dropout)
        self.short = ShortEncoder(config.dim, config.heads, config.short_layers, config.dropout)
        self.gate = Gate(config.dim)
        self.repeat = RepeatTerm(config.dim, GATE_SIGNALS)
        self.code_sizes = [
            AGE_CODES,
            len(vocabularies.gender) + 1,
            len(vocabularies.country) + 1,
            HOUR_CODES,
            WEEKDAY_CODES,
            len(vocabularies.device) + 1,
        ]
        self.codes = nn.ModuleList([nn.Embedding(size, config.dim, padding_idx=0) for size in self.code_sizes])
        for weight in self.codes.parameters():
            nn.init.zeros_(weight)
        self.long_out = nn.Linear(config.dim, config.dim)
        self.short_out = nn.Linear(config.dim, config.dim)
        for linear in (self.long_out, self.short_out):  # at first an interest is near the items that it was read from
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.dropout = nn.Dropout(config.dropout)

    def interest(
        self,
        long: Tensor,
        long_mask: Tensor,
        long_age: Tensor,
        recent_vectors: Tensor,
        recent_types: Tensor,
        recent_ages: Tensor,
        codes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fused interest (B, D), long weight (B, 1), weight of each recent event (B, T), the gate's signals (B, S).

        Args:
            long: (B, D); long_mask, long_age: (B, 1).
            recent_vectors: (B, T, D); recent_types, recent_ages: (B, T).
            codes: (B, 6), shopper codes then context codes.
        """
        long = long * long_mask
        short, weights = self.short(recent_vectors, recent_types, recent_ages)
        signals = gate_signals(long_mask, long_age, recent_types, recent_ages)
        share = self.gate(long, short, signals, long_mask, signals[:, 1:2])
        mixed = share * self.long_out(long) + (1.0 - share) * self.short_out(short)
        for column, table in enumerate(self.codes):
            mixed = mixed + table(codes[:, column])
        return self.dropout(mixed), share, weights, signals


def gate_signals(
    long_mask: Tensor,
    long_age: Tensor,
    recent_types: Tensor,
    recent_ages: Tensor,
    session_s: float = SESSION_S,
) -> Tensor:
    """(B, GATE_SIGNALS): both masks, ages of both strands, events of the session and since the long strand ended."""
    present = (recent_types > 0).float()
    some = present[:, -1:]
    unseen = present * torch.maximum((recent_ages < long_age).float(), 1.0 - long_mask)
    return torch.cat(
        [
            long_mask,
            some,
            torch.log1p(long_age.clamp(min=0.0)) * long_mask / 16.0,
            torch.log1p(recent_ages[:, -1:].clamp(min=0.0)) * some / 16.0,
            torch.log1p((present * (recent_ages < session_s).float()).sum(dim=1, keepdim=True)) / 4.0,
            torch.log1p(unseen.sum(dim=1, keepdim=True)) / 4.0,
        ],
        dim=-1,
    )
