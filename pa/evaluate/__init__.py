"""Scores, their uncertainty, and the files they are kept in. Needs no encoder and no torch."""
