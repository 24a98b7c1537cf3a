"""Cosine search over a store: FAISS indexes, top-k neighbours, the figure. Never imports torch."""
