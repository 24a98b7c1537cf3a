"""The attentive head as the authors' code has it, with nothing but torch's own layers: the oracle.

Every token goes through the key and the value projection; nothing is folded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pa.probe.attentive.stack import AttentiveStack


class PlainHead(nn.Module):
    def __init__(self, width: int, n_classes: int, attention_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, attention_heads, batch_first=True)
        self.norm = nn.BatchNorm1d(width, eps=1e-5, momentum=0.1, affine=False)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.norm_q(self.query).expand(len(tokens), -1, -1)
        out, _ = self.attention(query, self.norm_k(tokens), self.norm_v(tokens), need_weights=False)
        return self.classifier(self.norm(out[:, 0]))

    def places(self) -> dict[str, Tensor]:
        """Return the parameter of each number of `AttentiveHead`. The key's bias and its norm's
        shift are always zero and have none."""
        query, key, value = self.attention.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.attention.in_proj_bias.chunk(3)
        return {
            "query": self.query[0, 0],
            "query_gain": self.norm_q.weight,
            "query_shift": self.norm_q.bias,
            "key_gain": self.norm_k.weight,
            "value_gain": self.norm_v.weight,
            "value_shift": self.norm_v.bias,
            "query_weight": query,
            "key_weight": key,
            "value_weight": value,
            "query_bias": query_bias,
            "value_bias": value_bias,
            "out_weight": self.attention.out_proj.weight,
            "out_bias": self.attention.out_proj.bias,
            "weight": self.classifier.weight,
            "bias": self.classifier.bias,
            "bn_mean": self.norm.running_mean,
            "bn_var": self.norm.running_var,
        }

    def gradients(self) -> dict[str, Tensor]:
        """The gradient of every parameter, by our names."""
        query, key, value = self.attention.in_proj_weight.grad.chunk(3)
        query_bias, _, value_bias = self.attention.in_proj_bias.grad.chunk(3)
        actual = {
            "query": self.query.grad[0, 0],
            "query_weight": query,
            "key_weight": key,
            "value_weight": value,
            "query_bias": query_bias,
            "value_bias": value_bias,
        }
        for name, tensor in self.places().items():
            if name not in actual and tensor.grad is not None:
                actual[name] = tensor.grad
        return actual

    @classmethod
    def like(cls, heads: AttentiveStack, index: int) -> PlainHead:
        """A plain head with the numbers of one of ours."""
        C, D = heads.parameters["weight"].shape[1:]
        result = cls(D, C, heads.geometry.attention_heads)
        with torch.no_grad():
            result.attention.in_proj_bias.zero_()
            for name, folder in result.places().items():
                folder.copy_(heads.tensors()[name][index])
        return result
