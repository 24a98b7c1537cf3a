"""Indexes as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pa.commands.console import size


def index(info: Mapping[str, Any]) -> str:
    """What an index was built from, and how good it is."""
    recall = info["recall_at_24"]
    quality = (
        recall
        if isinstance(recall, str)
        else f"recall@{recall['k']} {recall['value']:.3f} on {recall['queries']} queries"
    )
    n_bytes = sum(file["bytes"] for file in info["files"].values())
    left_out = info["n_bad"] + info["n_zero"]
    return (
        f"{info['store']} · {info['representation']} · {info['factory']} ({quality})\n"
        f"  {info['n']} vectors of width {info['dimension']}, {size(n_bytes)}"
        + (f"; {left_out} rows left out (bad images or zero vectors)" if left_out else "")
        + _training(info)
        + f"; {info['path']}"
    )


def _training(info: Mapping[str, Any]) -> str:
    """On how many rows an index was trained, and where FAISS advises more."""
    training = info["training"]
    if training is None:
        return ""
    fewer = f" (FAISS advises {training['advised']})"
    return f"; trained on {training['rows']} rows" + (
        fewer if training["rows"] < training["advised"] else ""
    )
