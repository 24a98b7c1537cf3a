"""Forward passes: copy pixels to the device and features back, asynchronously on a GPU.

On a GPU copies overlap with forward passes through page-locked memory: `begin` queues the work and
returns, `Pending.arrays` waits for it. On a CPU `begin` computes the features.

Windows are cut and resized on a GPU, equal bit for bit to Pillow on the CPU. Pillow resizes 8-bit
images in integers: the weights of a filter are rounded to 22 fractional bits; each pass sums pixel
times weight in 32 bits, rounds, and clips to 0..255; first along the rows, then along the columns
(`Resample.c`). Integer sums depend neither on their order nor on the device.

n: rows of a batch, v: valid rows among them, S: side of the encoder's input, C: canvases of H×W
pixels, R: windows of w×w pixels, T: taps.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.images import Transform
from pa.data.views import GridView, View
from pa.errors import UsageError
from pa.evaluate.devices import full_precision
from pa.extract.encoders.base import Encoder
from pa.extract.pixels import Cut

# On a CPU larger batches are slower: their activations exceed the cache and need twice as many new
# memory pages per region (docs/performance.md).
CPU_BATCH, GPU_BATCH = 16, 256
PRECISION_BITS = 32 - 8 - 2  # Resample.c: 32-bit sums of 8-bit pixels, two bits for overshoot

Arrays = dict[str, npt.NDArray[np.float32]]


def default_batch(encoder: Encoder, view: View) -> int:
    """Return the regions per forward pass: fewer if they exceed the encoder's native size."""
    # Activations grow with the area of the input, so larger inputs mean fewer regions.
    batch = GPU_BATCH if encoder.device.type == "cuda" else CPU_BATCH
    native = encoder.transform.size
    return max(1, batch * native**2 // max(native, view.input_size(encoder.transform)) ** 2)


def cuts_on_device(encoders: Sequence[Encoder], view: View) -> bool:
    """Return whether windows are cut on the device: on GPUs, where uploads are the bottleneck."""
    return isinstance(view, GridView) and all(e.device.type == "cuda" for e in encoders)


def upload(cuts: Sequence[Cut], device: torch.device, view: View, transform: Transform) -> Tensor:
    """Copy the regions of a batch to the device: (v, S, S, 3) uint8."""
    pixels = _to_device([cut.pixels for cut in cuts], device)
    corners = [cut.corners for cut in cuts if cut.corners is not None]  # (B, 2) per image
    if not corners or not isinstance(view, GridView):
        return pixels
    canvas_of = np.repeat(np.arange(len(corners)), [len(c) for c in corners])  # (v,)
    return windows(
        pixels,
        torch.from_numpy(canvas_of).to(device, non_blocking=True),
        torch.from_numpy(np.concatenate(corners)).to(device, non_blocking=True),
        view.window,
        transform.size,
        view.interpolation,
    )


def _to_device(arrays: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> Tensor:
    if device.type != "cuda":
        return torch.from_numpy(np.concatenate(arrays)).to(device)
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    # Page-locked memory: a copy from other memory blocks until it is done.
    staged = torch.empty(shape, dtype=torch.uint8, pin_memory=True)  # (v, S, S, 3)
    np.concatenate(arrays, out=staged.numpy())
    return staged.to(device, non_blocking=True)


class Pending:
    """Features of v regions that the device may still be computing or copying."""

    def __init__(self, features: Mapping[str, Tensor], device: torch.device) -> None:
        self._arrived: torch.cuda.Event | None = None  # after the last copy from a GPU
        if device.type != "cuda":
            self._host = {name: tensor.float().cpu() for name, tensor in features.items()}
            return
        self._host = {
            name: torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
            for name, tensor in features.items()
        }
        for name, tensor in features.items():
            self._host[name].copy_(tensor.float(), non_blocking=True)
        # Waiting for the whole device would also wait for later batches.
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(device))

    def arrays(self) -> Arrays:
        """Wait for the features and return arrays (v, …), float32."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return {name: tensor.numpy() for name, tensor in self._host.items()}


class Forward:
    """The forward passes of an encoder, in pieces if a batch exceeds the device's memory."""

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        self.encoder = encoder
        self.names = list(names)  # representations
        self.device = encoder.device
        self._most: int | None = None  # regions that fit, after a batch did not

    def begin(self, pixels: Tensor) -> Pending:
        """Begin to encode pixels (v, S, S, 3) uint8 on the encoder's device.

        Raises `UsageError` if a single region exceeds the device's memory.
        """
        # Otherwise torch rounds the products of the patch embedding to TF32 on newer GPUs.
        with torch.inference_mode(), full_precision():
            return Pending(self._encode(pixels), self.device)

    def _encode(self, pixels: Tensor) -> dict[str, Tensor]:
        if self._most is None or len(pixels) <= self._most:
            try:
                features = self.encoder.encode(self.encoder.normalise(pixels), self.names)
                return {name: features[name] for name in self.names}
            except torch.OutOfMemoryError as error:
                if len(pixels) == 1:
                    raise UsageError(
                        f"{self.encoder.name}: the forward pass of a single region exceeds the "
                        f"memory of {self.device} ({str(error).splitlines()[0]}). Stop other "
                        f"programs on it, or encode with --dtype bf16 or --device cpu."
                    ) from None
            self._most = (len(pixels) + 1) // 2  # halved until it fits, and kept for later batches
            torch.cuda.empty_cache()
        pieces = [self._encode(piece) for piece in torch.split(pixels, self._most)]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in self.names}


def encode_pixels(encoder: Encoder, pixels: npt.NDArray[np.uint8], names: Sequence[str]) -> Arrays:
    """Encode pixels (v, S, S, 3) in one batch; return arrays (v, …), float32, by name."""
    on_device = _to_device([pixels], encoder.device)
    return Forward(encoder, names).begin(on_device).arrays()


def spread(
    arrays: Arrays, valid: npt.NDArray[np.bool_], shapes: Mapping[str, Sequence[int]]
) -> Arrays:
    """Return arrays (n, …) with the v valid rows of a batch; the other rows are zero."""
    if valid.all():
        return arrays
    # Rows of bad images are zero; `valid` of the shard marks them.
    full = {name: np.zeros((len(valid), *shape), np.float32) for name, shape in shapes.items()}
    for name, array in arrays.items():
        full[name][valid] = array
    return full


# -- windows on the device -------------------------------------------------------------------------


def _bicubic(x: float) -> float:
    """Evaluate the cubic convolution of Keys with a = -1/2, as Pillow does."""
    x = abs(x)
    if x < 1:
        return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bicubic": (_bicubic, 2.0),
    "bilinear": (lambda x: max(0.0, 1 - abs(x)), 1.0),
}


@functools.cache
def weights(
    source: int, target: int, interpolation: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the positions and weights of the taps that resize a line of `source` pixels.

    Positions are (target, T) int64, weights (target, T) int32 with 22 fractional bits; unused taps
    have weight 0.
    """
    filter_, support = FILTERS[interpolation]
    scale = source / target
    stretch = max(scale, 1.0)  # a filter for reduction is wider
    support *= stretch
    positions, taps = [], []
    for pixel in range(target):
        centre = (pixel + 0.5) * scale  # in source pixels
        first = max(0, int(centre - support + 0.5))
        last = min(source, int(centre + support + 0.5))
        raw = [filter_((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = sum(raw)
        taps.append([_fixed(value / total) for value in raw])
        positions.append(list(range(first, last)))
    most = max(map(len, taps))  # T
    padded = [[line + [0] * (most - len(line)) for line in lines] for lines in (positions, taps)]
    return (
        torch.tensor(padded[0], device=device),
        torch.tensor(padded[1], dtype=torch.int32, device=device),
    )


def _fixed(value: float) -> int:
    """Return a weight in fixed point, halves rounded away from zero."""
    scaled = abs(value) * (1 << PRECISION_BITS) + 0.5
    return int(math.copysign(math.floor(scaled), value))


def windows(
    canvases: Tensor, canvas_of: Tensor, corners: Tensor, side: int, size: int, interpolation: str
) -> Tensor:
    """Cut R windows and resize them to (R, S, S, 3) uint8, on the device of the canvases.

    The result equals that of `pa.data.images.crop_resize`.

    Parameters
    ----------
    canvases
        (C, H, W, 3) uint8.
    canvas_of
        (R,) int64, the canvas of each window.
    corners
        (R, 2) int64, x and y of the upper left corner; windows are inside their canvas.
    side, size
        Side of the windows in pixels, and S.
    """
    # All windows are gathered at once: one kernel per batch instead of one crop per window.
    reach = torch.arange(side, device=canvases.device)
    x, y = (corners[:, axis, None] + reach for axis in (0, 1))  # (R, w) each
    cut = canvases[canvas_of[:, None, None], y[:, :, None], x[:, None, :]]  # (R, w, w, 3)
    if size == side:
        return cut
    positions, taps = weights(side, size, interpolation, canvases.device)
    along_rows = _resample(cut, positions, taps, axis=2)  # (R, w, S, 3)
    return _resample(along_rows, positions, taps, axis=1)  # (R, S, S, 3)


def _resample(pixels: Tensor, positions: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Resize one axis of (R, h, w, 3) uint8 pixels."""
    shape = [1] * pixels.ndim
    shape[axis] = len(positions)
    total: Tensor | None = None
    for position, tap in zip(positions.unbind(1), taps.unbind(1), strict=True):
        part = pixels.index_select(axis, position) * tap.view(shape)
        total = part if total is None else total.add_(part)
    assert total is not None
    half = 1 << (PRECISION_BITS - 1)
    return total.add_(half).bitwise_right_shift_(PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


# -- memory on the CPU -----------------------------------------------------------------------------

# From malloc.h of glibc; other C libraries do not have them.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER = 2**31 - 1
# The limits of glibc's adjustment of the thresholds on 64-bit machines; setting one of the three
# turns this adjustment off. The third value is glibc's default.
AFTERWARDS = ((MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, 2**26), (MMAP_MAX, 65536))


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next allocation, and return it at the end.

    A pass on a CPU allocates and frees blocks of tens of megabytes, the same ones for each batch.
    The C library returns such blocks to the kernel immediately, which must clear every page again
    for the next batch: a tenth of the time of a ViT-B (docs/performance.md). In this context the
    process has the size of its largest batch. It has no effect without glibc.
    """
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        library = None
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    assert library is not None
    library.mallopt(TRIM_THRESHOLD, NEVER)
    library.mallopt(MMAP_MAX, 0)  # allocate all blocks on the heap
    try:
        yield
    finally:
        for parameter, value in AFTERWARDS:
            library.mallopt(parameter, value)
        library.malloc_trim(0)
