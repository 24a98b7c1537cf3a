"""Several attentive heads in one stack: one pass over the tokens serves all of them.

One head, by the authors' code (`patch_lincls.py`, 251-320) and CAE's (`modeling_cae.py`): a learned
query; LayerNorms of query, keys and values; one cross-attention over the class token and all patch
tokens, with biases on query, value and output; a BatchNorm without affine; a linear classifier. No
residual, no MLP, no position terms.

The shift of the keys' LayerNorm and a bias of the keys are omitted: they add the same value to the
scores of all tokens, which softmax ignores, so their gradient is zero and they stay at zero.

Shapes: H heads, B rows, T tokens, D width, A attention heads, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pa.probe.attentive.pooling import pool
from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.optim import seeded_generator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BN_MEAN, BN_VAR = "bn_mean", "bn_var"

WEIGHTS = 2  # purpose of the seed; the linear head has 0 and 1


@dataclass(frozen=True)
class Geometry:
    """Shape and constants of a head."""

    attention_heads: int
    norm_eps: float
    bn_eps: float
    dtype: torch.dtype = torch.float32


class AttentiveStack:
    """H heads in training or in use.

    `parameters` and `statistics` (of the BatchNorm) are float32 on one device, changed in place;
    their axis 0 is H. Matrices are (output, input), as in torch.nn.Linear.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
        geometry: Geometry,
    ) -> None:
        self.parameters = dict(parameters)
        self.statistics = dict(statistics)
        self.geometry = geometry

    @classmethod
    def new(
        cls,
        seeds: Sequence[int],
        width: int,
        n_classes: int,
        recipe: AttentiveRecipe,
        device: torch.device,
    ) -> AttentiveStack:
        """Return untrained heads, one for each seed, equal on every device."""
        initial = [_initial(seed, width, n_classes, recipe) for seed in seeds]
        parameters = {n: torch.stack([h[n] for h in initial]).to(device) for n in initial[0]}
        zeros = torch.zeros(len(seeds), width, device=device)  # (H, D)
        statistics = {BN_MEAN: zeros, BN_VAR: torch.ones_like(zeros)}
        dtype = DTYPES[recipe.precision]
        geometry = Geometry(recipe.heads_of(width), recipe.norm_eps, recipe.bn_eps, dtype)
        return cls(parameters, statistics, geometry)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, not copies."""
        return {**self.parameters, **self.statistics}

    def train_logits(self, cls: Tensor, patch: Tensor, momentum: float) -> Tensor:
        """Return class scores (H, B, C) of a batch normalised by its own statistics.

        The running statistics are updated as in torch.nn.BatchNorm1d.
        """
        attended = self._attend(cls, patch)  # (H, B, D)
        mean, var = attended.mean(1), attended.var(1, correction=0)  # (H, D)
        n = attended.shape[1]
        with torch.no_grad():
            self.statistics[BN_MEAN].lerp_(mean, momentum)
            self.statistics[BN_VAR].lerp_(var * (n / max(n - 1, 1)), momentum)
        return self._classify(attended, mean, var)

    def logits(self, cls: Tensor, patch: Tensor, *, by_batch: bool = False) -> Tensor:
        """Return class scores (H, B, C), by the running statistics or those of this batch."""
        attended = self._attend(cls, patch)  # (H, B, D)
        if by_batch:
            return self._classify(attended, attended.mean(1), attended.var(1, correction=0))
        return self._classify(attended, self.statistics[BN_MEAN], self.statistics[BN_VAR])

    def _attend(self, cls: Tensor, patch: Tensor) -> Tensor:
        """Return the output of the attention for each row, (H, B, D)."""
        p, (H, D) = self.parameters, self.parameters["query"].shape
        A, B = self.geometry.attention_heads, len(cls)
        query = F.layer_norm(p["query"], (D,), eps=self.geometry.norm_eps)  # (H, D)
        query = query * p["query_gain"] + p["query_shift"]
        query = torch.einsum("hoi,hi->ho", p["query_weight"], query) + p["query_bias"]
        # Scale of the dot product: Vaswani et al. 2017, section 3.2.1.
        query = query * (D // A) ** -0.5
        # Fold the key projection and the gain of the keys' LayerNorm into the queries.
        folded = torch.bmm(query.view(H * A, 1, D // A), p["key_weight"].view(H * A, D // A, D))
        queries = (folded.view(H, A, D) * p["key_gain"][:, None]).view(H * A, D)
        pooled = pool(queries, cls, patch, self.geometry.norm_eps, self.geometry.dtype)
        by_head = pooled.transpose(0, 1)  # (H·A, B, D)
        # Fold gain and shift of the values' LayerNorm into the projection: it is smaller than B·D.
        matrix = (p["value_weight"] * p["value_gain"][:, None]).view(H * A, D // A, D)
        bias = torch.einsum("hoi,hi->ho", p["value_weight"], p["value_shift"]) + p["value_bias"]
        # (H·A, B, D / A)
        values = torch.bmm(by_head, matrix.transpose(1, 2)) + bias.view(H * A, 1, D // A)
        joined = values.view(H, A, B, D // A).transpose(1, 2).reshape(H, B, D)
        return torch.baddbmm(p["out_bias"][:, None], joined, p["out_weight"].transpose(1, 2))

    def _classify(self, attended: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        p = self.parameters
        normed = (attended - mean[:, None]) / torch.sqrt(var[:, None] + self.geometry.bn_eps)
        return torch.baddbmm(p["bias"][:, None], normed, p["weight"].transpose(1, 2))


def _initial(seed: int, D: int, n_classes: int, recipe: AttentiveRecipe) -> dict[str, Tensor]:
    """Return the initial parameters of one head, float32, on the CPU."""
    generator = seeded_generator(seed, WEIGHTS)
    std, cut = recipe.init_std, recipe.init_std * recipe.init_cut

    def draw(*shape: int) -> Tensor:
        return torch.nn.init.trunc_normal_(
            torch.empty(shape), std=std, a=-cut, b=cut, generator=generator
        )

    query = draw(D)  # always drawn, so that the matrices do not depend on `query_init`
    matrices = {f"{name}_weight": draw(D, D) for name in ("query", "key", "value", "out")}
    weight = torch.empty(n_classes, D).normal_(0.0, recipe.classifier_std, generator=generator)
    return {
        "query": query if recipe.query_init == "normal" else torch.zeros(D),
        **{f"{name}_gain": torch.ones(D) for name in ("query", "key", "value")},
        **{f"{name}_shift": torch.zeros(D) for name in ("query", "value")},
        **matrices,
        **{f"{name}_bias": torch.zeros(D) for name in ("query", "value", "out")},
        "weight": weight,
        "bias": torch.zeros(n_classes),
    }
