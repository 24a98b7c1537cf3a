"""Datasets with label maps, and the builders that convert official releases."""
