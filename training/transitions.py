"""What followed what: counts over the log, and the model's term that raises what often came after the recent items.

A vector of some 64 numbers blurs rare pairs; counts keep them. The term is the first-order Markov chain of FPMC
(Rendle et al., "Factorizing personalized Markov chains", WWW 2010) with steps that skip, but unfactorised, and how much
a count is worth is learned together with everything else.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn
from tqdm import tqdm

from features.schema import EVENT_TYPE_CODES
from training.dataset import Log
from training.encoders import TIME_BUCKETS, time_bucket

WINDOW = 10
"""Pairs this many events apart, or fewer, count."""

FADING = 0.8
"""A pair counts this to the power of the events between."""

COMING = 50
"""Events after a moment whose pairs do not count at it, while fitting."""

FOLLOWERS = 64
"""Most followers that are kept of an item."""

VOTERS = 6
"""Recent events whose followers are raised."""

EVENT_DIM = 8
HINGES = 8
LEAST = 1e-3
"""A count up to this is none."""

ROUNDING = 1e-5
"""Counts that differ by less than this share are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followers:
    """The items that most often came after each of N items.

    items: int32 (N, K), most often first, -1 where there are no more. counts: float32 (N, K), faded; 0 where there are
    no more. floors: float32 (N,), the largest count that is not kept. before, after: float32 (N,), all counts with the
    item as the earlier and as the later one.
    """

    items: Tensor
    counts: Tensor
    floors: Tensor
    before: Tensor
    after: Tensor

    @staticmethod
    def none(items: int) -> "Followers":
        """Of so many items that nothing ever came after."""
        return Followers(
            items=torch.full((items, FOLLOWERS), -1, dtype=torch.int32),
            counts=torch.zeros(items, FOLLOWERS),
            floors=torch.zeros(items),
            before=torch.zeros(items),
            after=torch.zeros(items),
        )

    @staticmethod
    def of(log: Log, learn: npt.NDArray[np.bool_], backward: float = 0.0) -> "Followers":
        """Followers in the events that may be learned from, bool (n,); what came before counts `backward` of a pair."""
        counts = transition_counts(log, learn, WINDOW, FADING)
        if backward:
            counts = (counts + backward * counts.T).tocsr()
        before, after = (np.asarray(counts.sum(axis=axis)).ravel().astype(np.float32) for axis in (1, 0))
        items = np.full((log.item_count, FOLLOWERS), -1, np.int32)
        kept = np.zeros((log.item_count, FOLLOWERS), np.float32)
        row = np.repeat(np.arange(log.item_count), np.diff(counts.indptr))
        order = np.lexsort((-counts.data, row))
        place = np.arange(len(order)) - counts.indptr[row[order]]
        floors = np.zeros(log.item_count, np.float32)
        first_left = order[place == FOLLOWERS]
        floors[row[first_left]] = counts.data[first_left]
        order, place = order[place < FOLLOWERS], place[place < FOLLOWERS]
        items[row[order], place] = counts.indices[order]
        kept[row[order], place] = counts.data[order]
        return Followers(
            items=torch.from_numpy(items),
            counts=torch.from_numpy(kept),
            floors=torch.from_numpy(floors),
            before=torch.from_numpy(before),
            after=torch.from_numpy(after),
        )


def transition_counts(log: Log, learn: npt.NDArray[np.bool_], window: int, fading: float) -> sparse.csr_matrix:
    """How often the column's item came within `window` events after the row's, float32 (N, N).

    A pair counts `fading` to the power of the events between; both are of one shopper and may be learned from.
    """
    known = learn & (log.items >= 0)
    shoppers = log.shoppers
    found = sparse.csr_matrix((log.item_count, log.item_count), dtype=np.float32)
    for step in tqdm(range(1, window + 1), desc="transitions", leave=False, mininterval=0.5, delay=1):
        from_event = np.flatnonzero(known[:-step] & known[step:] & (shoppers[:-step] == shoppers[step:]))
        source, target = log.items[from_event], log.items[from_event + step]
        pairs = np.full(len(source), fading ** (step - 1), np.float32)
        found = found + sparse.csr_matrix((pairs, (source, target)), shape=found.shape)
    return found


class FollowersModule(nn.Module):
    """A part of the model that reads `Followers`, its buffers, as of the events that were learned from."""

    items: Tensor
    counts: Tensor
    floors: Tensor
    before: Tensor
    after: Tensor

    def __init__(self, followers: Followers) -> None:
        super().__init__()
        self.register_buffer("items", followers.items)
        self.register_buffer("counts", followers.counts)
        self.register_buffer("floors", followers.floors)
        self.register_buffer("before", followers.before)
        self.register_buffer("after", followers.after)

    def learn_from(self, followers: Followers) -> None:
        """Takes the counts of other events."""
        self.items.copy_(followers.items)
        self.counts.copy_(followers.counts)
        self.floors.copy_(followers.floors)
        self.before.copy_(followers.before)
        self.after.copy_(followers.after)


class TransitionTerm(FollowersModule):
    """What is added to the scores of the followers of a shopper's last `VOTERS` events."""

    def __init__(self, followers: Followers, signals: int, time: bool) -> None:
        """`signals` is the width of the gate's; without `time` ages are not read."""
        super().__init__(followers)
        self.time = time
        self.voters, self.window, self.fading = VOTERS, WINDOW, FADING
        self.least, self.rounding = LEAST, ROUNDING
        self.types = nn.Embedding(EVENT_TYPE_CODES, EVENT_DIM, padding_idx=0)
        self.ages = nn.Embedding(TIME_BUCKETS, EVENT_DIM)
        self.places = nn.Embedding(VOTERS, EVENT_DIM)
        self.event = nn.Sequential(nn.Linear(EVENT_DIM + signals, 32), nn.GELU(), nn.Linear(32, HINGES))
        self.hinges = nn.Linear(3, HINGES)

    def forward(
        self, recent: Tensor, types: Tensor, ages: Tensor, signals: Tensor, coming: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Items (B, X), -1 for none, and what is added to their scores (B, X).

        Args:
            recent, types, ages: (B, T) items, types and ages in seconds, newest last. signals: (B, S).
            coming: (B, up to `COMING`) learned items that came next, -1 for none: while fitting, the shopper's own
                pairs do not count. The later ones would tell the answer; those of the recent events are not in the
                counts either when they are served, and would pass off a shopper who goes back and forth as many.
        """
        before = recent
        if recent.shape[1] > self.voters:
            recent, types, ages = recent[:, -self.voters :], types[:, -self.voters :], ages[:, -self.voters :]
        asked = (recent >= 0) & (types > 0)
        voters = recent.clamp(min=0)
        items = self.items[voters]  # (B, M, K)
        counts = self.counts[voters]
        if coming is not None:
            counts = counts - own_pairs(recent, before, coming, items, self.window, self.fading)
        floors = (
            self.floors[voters].unsqueeze(2) * (1.0 + self.rounding) + self.least
        )  # up to it, own pairs brought it in
        there = (items >= 0) & (counts > floors) & asked.unsqueeze(2)
        event = self.types(types) + self.places.weight[self.voters - recent.shape[1] :]
        if self.time:
            event = event + self.ages(time_bucket(ages))
        shared = signals.unsqueeze(1).expand(-1, types.shape[1], -1)
        weights = self.event(torch.cat([event, shared], dim=-1)).flatten(0, 1)  # (B M, HINGES)
        flat = there.flatten().nonzero().squeeze(1)  # many places are empty: the rest of the work is on P full ones
        voter = torch.div(flat, items.shape[2], rounding_mode="floor")
        before = self.before[voters.flatten()[voter]]
        after = self.after[items.flatten()[flat].long()]
        pair = torch.stack([counts.flatten()[flat], before, after], dim=-1).clamp(min=self.least).log()
        raised = (torch.relu(self.hinges(pair)) * weights.index_select(0, voter)).sum(dim=-1)
        values = torch.zeros_like(counts).flatten().index_add(0, flat, raised)
        return torch.where(there, items, torch.full_like(items, -1)).flatten(1).long(), values.view_as(there).flatten(1)


def own_pairs(voters: Tensor, before: Tensor, coming: Tensor, followers: Tensor, window: int, fading: float) -> Tensor:
    """How much of each follower's count the moment's own shopper made, recently and later, (B, M, K).

    Args:
        voters: (B, M) items. before, coming: (B, T) and (B, C) items, in order of time, before and after the moment.
            followers: (B, M, K), of the voters.
    """
    events = torch.cat([before, coming], dim=1)
    same = (voters.unsqueeze(2) == events.unsqueeze(1)) & (voters >= 0).unsqueeze(2)  # (B, M, E)
    at = torch.arange(events.shape[1], device=events.device)
    apart = at.unsqueeze(0) - at.unsqueeze(1) - 1  # (E, E) events between
    faded = torch.pow(fading, apart.float()) * ((apart >= 0) & (apart < window))
    reach = same.float() @ faded  # (B, M, E): how much of a pair of the voter's item with each of the events
    reached = (reach > 0).any(dim=1) & (events >= 0)  # (B, E)
    own = torch.zeros(followers.shape, device=followers.device)
    for ahead in range(events.shape[1]):
        rows = reached[:, ahead].nonzero().squeeze(1)
        came = events[rows, ahead].reshape(-1, 1, 1)
        own.index_add_(0, rows, (followers[rows] == came) * reach[rows, :, ahead : ahead + 1])
    return own
