"""What is looked at together: co-visitation counts as a second opinion, mixed with the model's own.

A vector of some 64 numbers blurs rare pairs; counts keep them. Each recent event votes for the items that were most
often seen near its own, as in session-kNN (VSKNN, arXiv 1803.09587) but by pairs, and every item gets a share of the
votes. How a pair is read and how far the shares are trusted beside the model's probabilities is learned when the model
is fitted, from moments that neither has learned from (stacking: Wolpert, Neural Networks 5, 1992): both know their own
too well to tell.
"""

import numpy as np
import torch
from torch import Tensor, nn

from features.schema import EVENT_TYPE_CODES
from training.encoders import TIME_BUCKETS, time_bucket
from training.transitions import LEAST, Followers, FollowersModule

BACKWARD = 0.5
"""What a pair counts in the other direction: who looks at two things may do so in either order."""

VOTERS = 10
"""Recent events that vote."""

PLACE_FADING = 0.8
"""At first a vote counts this to the power of the events behind the voter."""

POWERS = (1.0, -0.5, -0.25)
"""At first a vote is a pair's count, and those of its earlier and its later item, to these powers."""

TRUST = 0.2
"""At first the companions' share of the mixture."""

EVIDENCE = 3
"""Numbers that tell how much all votes rest on."""
HIDDEN = 16


class CovisitMixture(FollowersModule):
    """The shares of the companions of a shopper's last `VOTERS` events, and how far they are trusted.

    Companions are `Followers` in both directions, `BACKWARD`.
    """

    def __init__(self, companions: Followers, signals: int, time: bool) -> None:
        """`signals` is the width of the gate's; without `time` ages are not read."""
        super().__init__(companions)
        self.time = time
        self.voters, self.least = VOTERS, LEAST
        self.powers = nn.Parameter(torch.tensor(POWERS))
        self.places = nn.Parameter(torch.arange(VOTERS - 1, -1, -1) * float(np.log(PLACE_FADING)))
        self.types = nn.Embedding(EVENT_TYPE_CODES, 1)
        self.ages = nn.Embedding(TIME_BUCKETS, 1)
        last = nn.Linear(HIDDEN, 1)
        self.trust = nn.Sequential(nn.Linear(signals + EVIDENCE, HIDDEN), nn.GELU(), last)
        for weight in (self.types.weight, self.ages.weight, last.weight):
            nn.init.zeros_(weight)
        nn.init.constant_(last.bias, float(np.log(TRUST / (1.0 - TRUST))))

    def forward(self, recent: Tensor, types: Tensor, ages: Tensor, signals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Items (B, X), -1 for none; their shares (B, X), which sum to 1 where there is one; log-odds of trust (B, 1).

        An item that several events vote for comes several times, and has the sum of its shares.

        Args:
            recent, types, ages: (B, T) items, types and ages in seconds, newest last. signals: (B, S).
        """
        if recent.shape[1] > self.voters:
            recent, types, ages = recent[:, -self.voters :], types[:, -self.voters :], ages[:, -self.voters :]
        voters = recent.clamp(min=0)
        items, counts = self.items[voters], self.counts[voters]  # (B, M, K)
        there = (items >= 0) & (counts > self.least) & ((recent >= 0) & (types > 0)).unsqueeze(2)
        event = self.places[self.voters - recent.shape[1] :].unsqueeze(1) + self.types(types)
        if self.time:
            event = event + self.ages(time_bucket(ages))
        before = self.log(self.before[voters]).unsqueeze(2)
        after = self.log(self.after[items.clamp(min=0).long()])
        votes = event + self.powers[0] * self.log(counts) + self.powers[1] * before + self.powers[2] * after
        votes = votes.clamp(max=20.0).exp() * there
        total = votes.sum(dim=(1, 2))
        counted = (counts * there).sum(dim=2)
        evidence = torch.stack([self.log(total), counted.sum(dim=1).log1p(), counted[:, -1:].sum(dim=1).log1p()], dim=1)
        trust = self.trust(torch.cat([signals, evidence / 4.0], dim=1))
        shares = votes.flatten(1) / total.clamp(min=1e-9).unsqueeze(1)
        return torch.where(there, items, torch.full_like(items, -1)).flatten(1).long(), shares, trust

    def log(self, counts: Tensor) -> Tensor:
        """Logarithms, of none as of the least."""
        return counts.clamp(min=self.least).log()


def mixed(scores: Tensor, items: Tensor, shares: Tensor, trust: Tensor) -> Tensor:
    """Scores (B, N) whose softmax is that of the given ones, mixed with the shares of `CovisitMixture`.

    The log-odds of trust divide between the two; what is the same for all items of a row is left out.
    """
    at = items.clamp(min=0)
    share = torch.zeros_like(scores).scatter_add(1, at, shares).gather(1, at)  # of the item, from all its voters
    raised = with_share(scores.gather(1, at), share, trust + scores.logsumexp(dim=1, keepdim=True))
    return scores.scatter(1, at, raised)


def with_share(scores: Tensor, share: Tensor, log_odds: Tensor) -> Tensor:
    """Scores of items, with their shares as much as the log-odds say; all of one shape, or broadcast."""
    return torch.where(share > 0, torch.logaddexp(scores, log_odds + share.clamp(min=1e-20).log()), scores)
