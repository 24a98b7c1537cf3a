"""The attentive probe: a learned query attends to the stored tokens of each region."""
