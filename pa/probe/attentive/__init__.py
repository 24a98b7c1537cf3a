"""The attentive probe: a learned query attends to the stored tokens of each region.

recipes     hyper-parameters, as named protocols
pooling     the attention itself, the only part that reads every token
heads       parameters of several heads, and their logits
tokens      batches of class and patch tokens, from memory or streamed
train       training by SGD, divergence, resuming
choice      choice of the learning rate on validation rows
head        one trained head: save, load, apply
run         selection, choice, training, scores, results
"""

from pa.probe.attentive.head import AttentiveHead, load_attentive_heads

__all__ = ["AttentiveHead", "load_attentive_heads"]
