"""The attentive probe: a learned query attends to the stored tokens of each region.

recipes     how it is trained, as named protocols
pooling     the attention itself, the only part that touches every token
heads       the parameters of several heads, and their logits
tokens      batches of class and patch tokens, from memory or streamed
train       the loop: SGD, divergence, the state of a run that may be killed
head        one trained head: save, load, apply
run         which rows, which learning rate, scores, results
"""

from pa.probe.attentive.head import AttentiveHead, load_attentive_heads

__all__ = ["AttentiveHead", "load_attentive_heads"]
