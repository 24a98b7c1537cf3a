"""The attentive probe: a learned query attends to the stored tokens of each region."""

from pa.probe.attentive.head import AttentiveHead, load_attentive_heads

__all__ = ["AttentiveHead", "load_attentive_heads"]
