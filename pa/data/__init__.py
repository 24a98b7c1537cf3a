"""Datasets, regions and the feature store. Nothing in here imports torch, timm or faiss."""
