"""Attention of many queries over the tokens of each row, without products of tokens and matrices.

The attentive head has one learned query for all rows. So its key projection folds into the query,
and its value projection may follow the weighted sum, because the weights sum to one:

    score of token t   = qᵀ W_k LN(x_t)       = (W_kᵀ q) · LN(x_t)
    attention's output = Σ_t p_t (W_v LN(x_t) + b) = W_v (Σ_t p_t LN(x_t)) + b

Each token takes two dot products per query, D·K instead of D·D multiplications: for 12 queries of
width 768, 64 times fewer. The results are equal up to rounding.

Shapes: B rows, T tokens (class token first), D width, K queries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Values of the chunk of a batch processed at a time: fits the caches of a CPU, bounds the memory of
# a GPU.
CHUNK_VALUES = {"cpu": 1 << 19, "cuda": 1 << 27}


def pool(queries: Tensor, cls: Tensor, patch: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Sum softmax(query · token) · token over tokens normalised to mean 0 and variance 1.

    `queries` are (K, D), float32; `cls` (B, D) and `patch` (B, T − 1, D) of any floating type, on
    the same device; the result is (B, K, D), float32. Products are computed in `dtype`, the softmax
    in float32. The backward pass normalises the tokens again, so memory beyond the tokens is
    B·K·(T + D) values.
    """
    pooled: Tensor = _Pool.apply(queries, cls, patch, eps, dtype)  # type: ignore[no-untyped-call]
    return pooled


def normalised(cls: Tensor, patch: Tensor, eps: float) -> Tensor:
    """Return all tokens (B, T, D), float32, after a LayerNorm without affine."""
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
        for part in _chunks(patch):
            x = normalised(cls[part], patch[part], eps).to(dtype)  # (chunk, T, D)
            scores = torch.bmm(q.expand(len(x), -1, -1), x.transpose(1, 2))  # (chunk, K, T)
            torch.softmax(scores.float(), dim=-1, out=weights[part])
            pooled[part] = torch.bmm(weights[part].to(dtype), x)
        ctx.save_for_backward(weights, cls, patch)
        ctx.eps, ctx.dtype = eps, dtype
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weights, cls, patch = ctx.saved_tensors  # (B, K, T), (B, D), (B, T − 1, D)
        total = torch.zeros_like(gradient[0])  # (K, D)
        for part in _chunks(patch):
            # Normalised again rather than kept, which would at least double the memory of tokens.
            x = normalised(cls[part], patch[part], ctx.eps).to(ctx.dtype)  # (chunk, T, D)
            p = weights[part]  # (chunk, K, T)
            # (chunk, K, T)
            by_weight = torch.bmm(gradient[part].to(ctx.dtype), x.transpose(1, 2)).float()
            # Derivative of softmax: p · (g − Σ g p).
            by_score = p * (by_weight - (by_weight * p).sum(-1, keepdim=True))
            total += torch.bmm(by_score.to(ctx.dtype), x).sum(0, dtype=torch.float32)
        return total, None, None, None, None


def _chunks(patch: Tensor) -> list[slice]:
    B, L, D = patch.shape
    n = max(1, CHUNK_VALUES.get(patch.device.type, CHUNK_VALUES["cuda"]) // ((1 + L) * D))
    return [slice(start, start + n) for start in range(0, B, n)]
