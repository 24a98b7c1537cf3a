"""Attention of many queries over the tokens of each row, without a product of tokens and matrices.

The attentive head asks one learned query for all rows. So its key projection folds into the query,
and its value projection may follow the weighted sum, weights summing to one:

    score of token t   = qᵀ W_k LN(x_t)       = (W_kᵀ q) · LN(x_t)
    attention's output = Σ_t p_t (W_v LN(x_t) + b) = W_v (Σ_t p_t LN(x_t)) + b

What is left to do for each token is two dot products per query, D·K in the place of D·D
multiplications: for 12 queries of width 768, 64 times fewer. The results are equal up
to rounding.

Shapes: B rows, T tokens (class token first), D width, K queries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Values of a piece of the batch that is worked on at a time. On a CPU it stays in the caches; on a
# GPU it only has to bound the memory.
PIECE_VALUES = {"cpu": 1 << 19, "cuda": 1 << 27}


def pool(queries: Tensor, cls: Tensor, patch: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Sum over tokens of softmax(query · token) token, of tokens normalised to mean 0, variance 1.

    `queries` (K, D), float32; `cls` (B, D) and `patch` (B, T − 1, D) in any floating type, on the
    same device. Returns (B, K, D), float32. The products are computed in `dtype`, the softmax in
    float32. Differentiable by the queries; what the backward pass needs of the tokens is computed
    again, so memory beyond the tokens themselves is B·K·(T + D) values.
    """
    pooled: Tensor = _Pool.apply(queries, cls, patch, eps, dtype)  # type: ignore[no-untyped-call]
    return pooled


def normalised(cls: Tensor, patch: Tensor, eps: float) -> Tensor:
    """All tokens (B, T, D), float32, each with mean 0 and variance 1: LayerNorm without affine."""
    B, L, D = patch.shape
    tokens = torch.empty(B, 1 + L, D, device=patch.device)
    tokens[:, 0] = cls
    tokens[:, 1:] = patch
    return F.layer_norm(tokens, (D,), eps=eps)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, cls: Tensor, patch: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        B, T = len(patch), 1 + patch.shape[1]
        K, D = queries.shape
        weights = torch.empty(B, K, T, device=queries.device)
        pooled = torch.empty(B, K, D, device=queries.device)
        q = queries.to(dtype)
        for part in _pieces(patch):
            x = normalised(cls[part], patch[part], eps).to(dtype)
            scores = torch.bmm(q.expand(len(x), -1, -1), x.transpose(1, 2))
            torch.softmax(scores.float(), dim=-1, out=weights[part])
            pooled[part] = torch.bmm(weights[part].to(dtype), x)
        ctx.save_for_backward(weights, cls, patch)
        ctx.eps, ctx.dtype = eps, dtype
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weights, cls, patch = ctx.saved_tensors
        total = torch.zeros_like(gradient[0])
        for part in _pieces(patch):
            x = normalised(cls[part], patch[part], ctx.eps).to(ctx.dtype)
            p = weights[part]
            by_weight = torch.bmm(gradient[part].to(ctx.dtype), x.transpose(1, 2)).float()
            by_score = p * (by_weight - (by_weight * p).sum(-1, keepdim=True))
            total += torch.bmm(by_score.to(ctx.dtype), x).sum(0, dtype=torch.float32)
        return total, None, None, None, None


def _pieces(patch: Tensor) -> list[slice]:
    B, L, D = patch.shape
    n = max(1, PIECE_VALUES.get(patch.device.type, PIECE_VALUES["cuda"]) // ((1 + L) * D))
    return [slice(start, start + n) for start in range(0, B, n)]
