"""The class counts of a segmentation dataset, from its own files, beside the paper's.

A difference is reported and changes nothing: the lists are frozen.
"""

from pa.data.datasets.segmentation.class_check.ade20k import (
    Seen,
    check_ade20k,
    check_index,
    see_parts,
)
from pa.data.datasets.segmentation.class_check.found import ClassCheck
from pa.data.datasets.segmentation.class_check.pascal import check_pascal
from pa.data.datasets.segmentation.class_check.tree import check_challenge, check_tree

__all__ = [
    "ClassCheck",
    "Seen",
    "check_ade20k",
    "check_challenge",
    "check_index",
    "check_pascal",
    "check_tree",
    "see_parts",
]
