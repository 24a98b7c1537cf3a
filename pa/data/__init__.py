"""Datasets, regions and the feature store. No module here imports torch, timm or faiss."""
