"""The modules that are served, as TorchScript: the one place that knows how a model is exported and loaded.

`FusionServing` and `TowerServing` take and give exactly the tensors of `features.schema`. `EncoderServing` is no part
of Triton's: the jobs that make long-term vectors call it (`training.encode`), and the gate of releases.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from features.schema import PADDING, TOP_ITEMS, UNKNOWN
from training.covisitation import mixed
from training.fusion import SESSION_S, FusionModel, gate_signals
from training.whole_file import write_whole

REFUSED_SCORE = -1e9
"""Score in the places of `top_scores` that no allowed item fills."""


class ItemTable(nn.Module):
    """The item vectors and biases of a release, frozen, and the tower for what is younger."""

    vectors: Tensor
    bias: Tensor
    repeat_features: Tensor

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        with torch.no_grad():
            vectors, bias = model.tower()
        self.register_buffer("vectors", torch.cat([vectors, torch.zeros(1, vectors.shape[1])]).contiguous())
        self.register_buffer("bias", bias.clone())
        with torch.no_grad():
            self.register_buffer("repeat_features", model.repeat.item(self.vectors))

    def rows(self, items: Tensor) -> Tensor:
        """Vectors of item indices, zero for padding and unknown items."""
        last = self.vectors.shape[0] - 1
        return self.vectors[torch.where(items < 0, torch.full_like(items, last), items)]

    def features(self, items: Tensor) -> Tensor:
        """What the repeat term reads of item indices."""
        last = self.vectors.shape[0] - 1
        return self.repeat_features[torch.where(items < 0, torch.full_like(items, last), items)]


class FusionServing(nn.Module):
    """`schema.FUSION_INPUTS` to `schema.FUSION_OUTPUTS`, with a batch dimension first."""

    bits: Tensor
    padding: int
    unknown: int
    most: int
    refused: float
    session_s: float

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.table = ItemTable(model)
        self.tower = TowerServing(model)
        self.model = model
        bytes_ = torch.arange(256).unsqueeze(1)
        self.register_buffer("bits", (bytes_ >> torch.arange(8)) & 1 > 0)  # (256, 8)
        self.padding, self.unknown, self.most, self.refused = PADDING, UNKNOWN, TOP_ITEMS, REFUSED_SCORE
        self.session_s = SESSION_S

    def forward(
        self,
        long_interest: Tensor,
        long_mask: Tensor,
        long_age: Tensor,
        recent_items: Tensor,
        recent_types: Tensor,
        recent_ages: Tensor,
        recent_content: Tensor,
        own_items: Tensor,
        own_features: Tensor,
        shopper: Tensor,
        context: Tensor,
        allowed: Tensor,
        candidates: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        recent = recent_items.long()
        types = recent_types.long()
        recent_vectors = self.table.rows(recent)
        unknown = recent == self.unknown
        if unknown.is_cuda or bool(unknown.any()):  # asking a GPU costs more than the work, and forbids a CUDA graph
            content_vectors, _ = self.tower(recent_content)
            recent_vectors = torch.where(unknown.unsqueeze(-1), content_vectors, recent_vectors)
        interest, share, weights, signals = self.fuse(
            long_interest,
            long_mask * float(self.model.use_long),
            long_age,
            recent_vectors,
            types,
            recent_ages,
            torch.cat([shopper, context], dim=1).long(),
        )
        items = self.table.bias.shape[0]
        scores = torch.addmm(self.table.bias, interest, self.table.vectors[:items].t())  # (B, N)
        if self.model.use_repeat:
            own = own_items.long()
            trends = self.model.repeat.trends[own.clamp(min=0)]
            plain = scores.gather(1, own.clamp(min=0))
            own_term = self.model.repeat.of_own(self.table.features(own), plain, own_features, trends, signals)
            features, plain = self.model.repeat.item(recent_vectors), scores.gather(1, recent.clamp(min=0))
            recent_term = self.model.repeat.of_recent(features, plain, types, recent_ages, signals)
            scores = scores.scatter_add(1, own.clamp(min=0), own_term * (own >= 0))
            scores = scores.scatter_add(1, recent.clamp(min=0), recent_term * ((recent >= 0) & (types > 0)))
        if self.model.use_transitions:
            followers, raised = self.model.transitions(recent, types, recent_ages, signals, None)
            scores = scores.scatter_add(1, followers.clamp(min=0), raised)  # 0 where there is none
        if self.model.use_covisitation:
            companions, shares, trust = self.model.covisitation(recent, types, recent_ages, signals)
            scores = mixed(scores, companions, shares, trust)

        asked = candidates.long()
        candidate_scores = scores.gather(1, asked.clamp(min=0, max=items - 1))
        candidate_scores = torch.where(asked >= 0, candidate_scores, torch.full_like(candidate_scores, self.refused))
        top_scores, top_items = self.best(scores, allowed)
        return top_items, top_scores, candidate_scores, interest, share, weights

    def fuse(
        self,
        long: Tensor,
        long_mask: Tensor,
        long_age: Tensor,
        recent_vectors: Tensor,
        types: Tensor,
        ages: Tensor,
        codes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fused interest (B, D), long weight (B, 1), weight of each recent event (B, T), signals (B, S)."""
        length = types.shape[1]
        present = (types > 0).float()
        new = (types > 0) & ((ages < long_age) | (long_mask == 0))  # the last ones: after the long strand, or all
        read = (types > 0) if self.model.overlap else new
        count = read.sum(dim=1, keepdim=True)
        at = torch.arange(length, device=types.device).unsqueeze(0)
        left = (at + length - count) % length  # the encoder reads left-aligned rows
        shifted = ages.gather(1, left)
        gaps = torch.zeros_like(ages)
        gaps[:, 1:] = (shifted[:, :-1] - shifted[:, 1:]).clamp(min=0.0)
        gaps = gaps * (at < count)
        row = torch.arange(types.shape[0], device=types.device).unsqueeze(1)
        short, weights = self.model.short.newest(
            recent_vectors[row, left], types.gather(1, left), gaps, (count.squeeze(1) - 1).clamp(min=0)
        )
        weights = weights.gather(1, (at + count) % length) * read
        short_mask = read[:, -1:].float() * float(self.model.use_short)
        long, short = long * long_mask, short * short_mask
        age = ages[:, -1:] * present[:, -1:]
        session = (present * (ages < self.session_s)).sum(dim=1, keepdim=True) * short_mask
        unseen = new.float().sum(dim=1, keepdim=True)
        signals = gate_signals(long, short, long_mask, long_age, short_mask, age, session, unseen * short_mask)
        interest, share = self.model.interest(long, long_mask, short, signals, age, codes)
        return interest, share, weights, signals

    def best(self, scores: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """The best `TOP_ITEMS` allowed scores and their items, from scores (B, N) and packed bits (B, M)."""
        batch, items = scores.shape
        if allowed.shape[1] > 1 or bool((allowed != 0).any()):
            kept = self.bits[allowed.long()].reshape(batch, -1)[:, :items]  # (B, up to N)
            if kept.shape[1] < items:
                kept = torch.nn.functional.pad(kept, [0, items - kept.shape[1]])
            if allowed.shape[1] == 1:
                kept = kept | (allowed == 0)
            scores = scores.masked_fill(~kept, self.refused)
        top_scores, top_items = scores.topk(min(self.most, items), dim=1)
        short = self.most - top_items.shape[1]
        if short > 0:
            top_scores = torch.nn.functional.pad(top_scores, [0, short], value=self.refused)
            top_items = torch.nn.functional.pad(top_items, [0, short])
        top_items = torch.where(top_scores > self.refused, top_items, torch.full_like(top_items, self.padding))
        return top_scores, top_items.int()


class TowerServing(nn.Module):
    """`schema.ITEM_TOWER_INPUTS` to `schema.ITEM_TOWER_OUTPUTS`: content int32 (..., W) to (..., D) and (..., 1)."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.tower = model.tower

    def forward(self, content: Tensor) -> tuple[Tensor, Tensor]:
        vectors, bias = self.tower.of_content(content)
        return vectors, bias.unsqueeze(-1)


class EncoderServing(nn.Module):
    """Histories to long-term vectors: items and types int32 (B, L), gaps float32 (B, L) seconds, lengths int64 (B,)."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.table = ItemTable(model)
        self.long = model.long

    def forward(self, items: Tensor, types: Tensor, gaps: Tensor, lengths: Tensor) -> Tensor:
        """float32 (B, D): the state at each row's last event; rows are left-aligned and at least 1 long."""
        state: Tensor = self.long.newest(self.table.rows(items.long()), types.long(), gaps, lengths - 1)[0]
        return state


def save_module(module: nn.Module, path: Path) -> None:
    """Scripts a module in evaluation mode and writes it.

    Raises:
        OSError: it cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")  # upstream's plan, known
        scripted = torch.jit.freeze(torch.jit.script(module.eval()))
        write_whole(path, lambda file: torch.jit.save(scripted, file))


def load_module(path: Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Reads what `save_module` wrote; a frozen module goes to its device now or never."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device).eval()
    return module
