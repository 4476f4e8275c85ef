"""Item tower: the sum of an id embedding and of a bag of content codes, and a bias from both.

An item that no one has touched yet has no id embedding of its own; its vector is its content's.
"""

import torch
from torch import Tensor, nn


class ItemTower(nn.Module):
    """Vectors and biases of the N items of a catalogue.

    Buffers: `content` int32 (N, W); `seen` float32 (N, 1), 1 where the training log has events of the item.
    """

    content: Tensor
    seen: Tensor

    def __init__(self, content: Tensor, seen: Tensor, content_codes: int, dim: int, use_content: bool = True) -> None:
        """`content_codes` is `ContentVocabulary.size`; without `use_content` an item is its id alone."""
        super().__init__()
        self.use_content = use_content
        self.register_buffer("content", content.int())
        self.register_buffer("seen", seen.float().reshape(-1, 1))
        self.ids = nn.Embedding(content.shape[0], dim)
        self.id_bias = nn.Embedding(content.shape[0], 1)
        self.codes = nn.EmbeddingBag(content_codes, dim, mode="mean", padding_idx=0)
        self.code_bias = nn.EmbeddingBag(content_codes, 1, mode="mean", padding_idx=0)
        nn.init.normal_(self.ids.weight, std=0.5 * dim**-0.5)
        nn.init.normal_(self.codes.weight, std=dim**-0.5)
        nn.init.zeros_(self.id_bias.weight)
        nn.init.zeros_(self.code_bias.weight)
        with torch.no_grad():
            self.codes.weight[0] = 0.0

    def start_from(self, vectors: Tensor, bias: Tensor) -> None:
        """Sets the id embeddings, float32 (N, D), and their biases (N,)."""
        with torch.no_grad():
            self.ids.weight.copy_(vectors)
            self.id_bias.weight.copy_(bias.unsqueeze(-1))

    def forward(self, keep_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors (N, D) and biases (N,).

        Args:
            keep_ids: float32 (N, 1), 0 for items whose id embedding is left out of this step.
        """
        seen = self.seen if keep_ids is None else self.seen * keep_ids
        if not self.use_content:
            return self.ids.weight * seen, (self.id_bias.weight * seen).squeeze(-1)
        vectors, bias = self.of_content(self.content)
        return vectors + self.ids.weight * seen, bias + (self.id_bias.weight * seen).squeeze(-1)

    def of_content(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., D) and biases (...) of items known by content alone, int32 (..., W)."""
        flat = content.reshape(-1, content.shape[-1])
        if not self.use_content:
            flat = torch.zeros_like(flat)
        shape = list(content.shape[:-1])
        return self.codes(flat).reshape(shape + [-1]), self.code_bias(flat).reshape(shape)  # noqa: RUF005
