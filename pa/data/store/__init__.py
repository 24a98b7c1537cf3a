"""The feature store: HDF5 shards, rows, spec and manifest, and how they are found and read."""
