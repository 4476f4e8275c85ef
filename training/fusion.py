"""The fusion model: how much of each strand (SLi-Rec's adaptive gate, SDM arXiv 1909.00385), and the score of an item.

score = interest . item vector + item bias + repeat term + transition term. The last two stand for what a vector cannot
say exactly: this very item, bought so often and so long ago, or looked at a minute ago; and what often came next. What
is looked at together is mixed in afterwards (`training.covisitation`).
"""

import torch
from torch import Tensor, nn

from features.inputs.codes import AGE_CODES, HOUR_CODES, WEEKDAY_CODES, CodeVocabularies
from features.schema import CONTEXT_CODES, EVENT_TYPE_CODES, OWN_FEATURES, SHOPPER_CODES
from training.config import ModelConfig
from training.covisitation import CovisitMixture
from training.encoders import TIME_BUCKETS, Encoder, time_bucket
from training.item_tower import ItemTower
from training.item_trend import TREND_DAYS
from training.transitions import Followers, TransitionTerm

SESSION_S = 1800.0
"""Recent events younger than this count as the current session."""

SIGNALS = 7
REPEAT_DIM = 8
TIME_CODES = ("hour", "weekday")


class Fusion(nn.Module):
    """Two strands to one interest, and the share of the long one, which starts at one half."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.fusion
        dim = config.dim
        self.long_out = nn.Linear(dim, dim)
        self.short_out = nn.Linear(dim, dim)
        for linear in (self.long_out, self.short_out):  # at first an interest is near the items that it was read from
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        both = 2 * dim + SIGNALS
        gate = (both, 32, 1)
        asked, width, given = {
            "gate_mlp": gate,
            "gate": gate,
            "attention": (SIGNALS, dim, dim),
            "concat": (both, 2 * dim, dim),
        }[config.fusion]
        self.hidden = nn.Linear(asked, width)
        self.out = _silent(nn.Linear(width, given))
        self.beside = nn.Sequential()
        if config.fusion == "gate_mlp":
            self.beside = nn.Sequential(nn.Linear(both, 2 * dim), nn.ReLU(), _silent(nn.Linear(2 * dim, dim)))

    def forward(
        self, long: Tensor, short: Tensor, signals: Tensor, long_mask: Tensor, short_mask: Tensor, forced: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The mixed interest (B, D) and the share of the long strand (B, 1).

        The share is 0 without the long strand and 1 without the short one.

        Args:
            forced: (B, 1) shares to take instead of the model's own, where both strands are there; NaN is none.
        """
        long_part, short_part = self.long_out(long) * long_mask, self.short_out(short) * short_mask
        if self.kind == "attention":
            query = self.out(torch.tanh(self.hidden(signals)))
            scores = torch.stack([(query * long_part).sum(dim=1), (query * short_part).sum(dim=1)], dim=1)
            share = torch.softmax(scores, dim=1)[:, :1]
        elif self.kind == "gate" or self.kind == "gate_mlp":
            share = torch.sigmoid(self.out(torch.tanh(self.hidden(torch.cat([long, short, signals], dim=1)))))
        else:
            share = torch.full_like(long_mask, 0.5)
        if forced is not None:
            share = torch.where(forced.isnan(), share, forced)
        share = torch.where(short_mask > 0, share, torch.ones_like(share)) * long_mask
        mixed = share * long_part + (1.0 - share) * short_part
        parts = torch.cat([long_part, short_part, signals], dim=1)
        if self.kind == "gate_mlp":
            mixed = mixed + self.beside(parts)
        elif self.kind == "concat":
            mixed = mixed + self.out(torch.relu(self.hidden(parts)))
        return mixed, share


def _silent(linear: nn.Linear) -> nn.Linear:
    """A layer that says nothing until it has learned."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class RepeatTerm(nn.Module):
    """What is added to the scores of a shopper's own items and of the items of the recent events."""

    trends: Tensor

    def __init__(self, dim: int, items: int) -> None:
        """Buffer `trends`: float32 (items, `TREND_DAYS`), as of the end of what was learned from."""
        super().__init__()
        self.register_buffer("trends", torch.zeros(items, len(TREND_DAYS)))
        self.item = nn.Linear(dim, REPEAT_DIM)
        read = len(OWN_FEATURES) + len(TREND_DAYS) + REPEAT_DIM + SIGNALS + 1
        self.own = nn.Sequential(nn.Linear(read, 32), nn.GELU(), nn.Linear(32, 1))
        self.seen_type = nn.Embedding(EVENT_TYPE_CODES, REPEAT_DIM, padding_idx=0)
        self.seen_time = nn.Embedding(TIME_BUCKETS, REPEAT_DIM)
        self.seen = nn.Sequential(nn.Linear(3 * REPEAT_DIM + SIGNALS + 1, 32), nn.GELU(), nn.Linear(32, 1))

    def of_own(self, items: Tensor, scores: Tensor, features: Tensor, trends: Tensor, signals: Tensor) -> Tensor:
        """(B, R) from `item` of the items' vectors (B, R, `REPEAT_DIM`), their scores without terms (B, R), own
        features (B, R, F), the items' trends (B, R, `TREND_DAYS`), signals (B, S).

        The scores are read because what is bought or seen again is so however rare it is among all.
        """
        shared = signals.unsqueeze(1).expand(-1, features.shape[1], -1)
        term: Tensor = self.own(torch.cat([features, trends, items, shared, self.scaled(scores)], dim=-1))
        return term.squeeze(-1)

    def scaled(self, scores: Tensor) -> Tensor:
        """(B, X, 1) of scores (B, X), about as large as what else the nets read."""
        return scores.detach().unsqueeze(-1) / 4.0

    def of_recent(self, items: Tensor, scores: Tensor, types: Tensor, ages: Tensor, signals: Tensor) -> Tensor:
        """(B, T) from `item` of the items' vectors (B, T, `REPEAT_DIM`), scores as above, types and ages (B, T)."""
        shared = signals.unsqueeze(1).expand(-1, types.shape[1], -1)
        parts = [self.seen_type(types), self.seen_time(time_bucket(ages)), items, shared, self.scaled(scores)]
        term: Tensor = self.seen(torch.cat(parts, dim=-1))
        return term.squeeze(-1)


class FusionModel(nn.Module):
    """All of it. Training calls the parts on a batch; `training.export` wraps them for serving."""

    def __init__(self, config: ModelConfig, tower: ItemTower, vocabularies: CodeVocabularies) -> None:
        super().__init__()
        self.use_long, self.use_short = config.long, config.short
        self.overlap = config.overlap or not config.long  # without a long strand, nothing was read before
        self.use_repeat, self.use_transitions = config.repeat, config.transitions
        self.use_covisitation = config.covisitation
        self.tower = tower
        self.long = Encoder(config, config.long_layers)
        self.short = Encoder(config, config.short_layers)
        self.fusion = Fusion(config)
        self.repeat = RepeatTerm(config.dim, tower.ids.num_embeddings if config.repeat else 0)
        self.transitions = TransitionTerm(
            Followers.none(tower.ids.num_embeddings if config.transitions else 0), SIGNALS, config.time
        )
        self.last_age = nn.Embedding(TIME_BUCKETS, config.dim)
        self.code_sizes = [
            AGE_CODES,
            len(vocabularies.gender) + 1,
            len(vocabularies.country) + 1,
            HOUR_CODES,
            WEEKDAY_CODES,
            len(vocabularies.device) + 1,
        ]
        self.codes = nn.ModuleList([nn.Embedding(size, config.dim, padding_idx=0) for size in self.code_sizes])
        for weight in [*self.codes.parameters(), self.last_age.weight]:
            nn.init.zeros_(weight)
        self.time = config.time
        names = (*SHOPPER_CODES, *CONTEXT_CODES)
        self.use_codes = [config.time or name not in TIME_CODES for name in names]
        self.dropout = nn.Dropout(config.dropout)
        self.covisitation = CovisitMixture(
            Followers.none(tower.ids.num_embeddings if config.covisitation else 0), SIGNALS, config.time
        )

    def interest(
        self,
        long: Tensor,
        long_mask: Tensor,
        short: Tensor,
        signals: Tensor,
        recent_age: Tensor,
        codes: Tensor,
        forced: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The fused interest (B, D) and the share of the long strand in it (B, 1).

        Args:
            long, short: (B, D) states of the strands. long_mask: (B, 1).
            signals: (B, S) of `gate_signals`. recent_age: (B, 1) seconds since the newest event.
            codes: (B, 6), shopper codes then context codes.
            forced: (B, 1) shares to take instead of the model's own, NaN for none.
        """
        short_mask = signals[:, 1:2]
        mixed, share = self.fusion(long * long_mask, short * short_mask, signals, long_mask, short_mask, forced)
        if self.time:
            mixed = mixed + self.last_age(time_bucket(recent_age.squeeze(1))) * short_mask
        for column, table in enumerate(self.codes):
            if self.use_codes[column]:
                mixed = mixed + table(codes[:, column])
        return self.dropout(mixed), share


def gate_signals(
    long: Tensor,
    short: Tensor,
    long_mask: Tensor,
    long_age: Tensor,
    short_mask: Tensor,
    recent_age: Tensor,
    session_events: Tensor,
    unseen_events: Tensor,
) -> Tensor:
    """(B, SIGNALS): both masks, ages of both strands, events of the session and since the long strand ended, and how
    alike the two strands are.

    Args:
        long, short: (B, D). All others: (B, 1), ages in seconds, 0 where the strand is not there.
        session_events: recent events younger than `SESSION_S`. unseen_events: recent events newer than the long strand.
    """
    both = long_mask * short_mask
    return torch.cat(
        [
            long_mask,
            short_mask,
            torch.log1p(long_age.clamp(min=0.0)) * long_mask / 16.0,
            torch.log1p(recent_age.clamp(min=0.0)) * short_mask / 16.0,
            torch.log1p(session_events) / 4.0,
            torch.log1p(unseen_events) / 4.0,
            torch.cosine_similarity(long, short, dim=1).unsqueeze(1) * both,
        ],
        dim=-1,
    )
