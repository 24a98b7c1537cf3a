"""Class counts of Pascal-Part, from its .mat files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from pa.data.datasets.segmentation import labels, masks, pascal
from pa.data.datasets.segmentation.ade20k_index import Count
from pa.data.datasets.segmentation.class_check.found import ClassCheck, threaded
from pa.errors import AnnotationError
from pa.progress import Progress

PASCAL_IMAGES = 10_103
Size = tuple[int, int]
EMPTY: Mapping[str, Size] = {}


def check_pascal(
    root: Path,
    progress: Progress,
    kind: str = "pascal-part",
    *,
    sizes: Mapping[str, Size] = EMPTY,
    names: Collection[str] | None = None,
) -> ClassCheck:
    """Read every .mat of Pascal-Part: which (class, part) there are, and which are not listed.

    For `pascal-object` the list is that of the objects: the classes that have parts. `sizes` are
    those of the images, by id: an annotation of another size is a fault. `names` are the images to
    look at, None = all.
    """
    mats = {
        name: path
        for name, path in pascal.find_mats(root).items()
        if names is None or name in names
    }
    parts, objects = labels.load("pascal-part"), labels.load("pascal-object")
    listed = labels.load(kind)
    check = ClassCheck(f"Pascal-Part in {root}", len(listed), listed.paper_classes)
    seen: Counter[tuple[int, str]] = Counter()
    progress.start("Pascal-Part: annotations", len(mats), "files")
    for found in threaded(partial(_see_mat, sizes), mats.values()):
        progress.advance(1)
        if isinstance(found, str):
            check.faults.append(found)
        else:
            seen += found
    progress.stop()
    known = pascal.part_values()
    with_parts = {voc_class for voc_class, _ in seen}
    check.images, check.of_images = len(mats), PASCAL_IMAGES
    check.counts = [
        Count("annotated images", len(mats), str(PASCAL_IMAGES)),
        Count("classes with parts", len(with_parts), str(len(objects))),
        Count("(class, part) pairs, numbered parts merged", len(seen), str(len(parts))),
        Count("… of these in the list", sum(pair in known for pair in seen), str(len(parts))),
    ]
    if kind == "pascal-object":
        check.counts = check.counts[:2]
        check.missing = [c.name for c in objects.classes if c.keys["voc_class"] not in with_parts]
        return check
    check.missing = [c.name for c in parts.classes if (c.keys["voc_class"], c.part) not in seen]
    check.notes = [f"not in the list: class {c}, part {p}" for c, p in seen if (c, p) not in known]
    return check


def _see_mat(sizes: Mapping[str, Size], path: Path) -> Counter[tuple[int, str]] | str:
    try:
        things = pascal.read_mat(path)
        if things and (size := sizes.get(path.stem)) is not None:
            masks.check_size(things[0].silhouette, size, path)
    except AnnotationError as error:
        return str(error)
    return Counter((t.voc_class, pascal.part_name(name)) for t in things for name, _ in t.parts)
