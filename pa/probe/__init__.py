"""Probes: small heads trained on stored features, never on images."""
