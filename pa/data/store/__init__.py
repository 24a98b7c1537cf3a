"""The feature store: HDF5 shards, rows, spec and manifest; finding, reading and writing stores."""
