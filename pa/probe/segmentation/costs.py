"""What a segmentation run consists of, and how fast a machine does it: FLOP, bytes, seconds.

L tokens of a window, D width of the encoder, K layers kept, S side of a window, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pa.errors import UsageError

ASSUMED = "assumed"


@dataclass(frozen=True)
class Rate:
    """How much of something is done in a second, and where the number comes from."""

    value: float
    unit: str
    source: str = ASSUMED

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise UsageError(f"a rate must be positive, not {self.value:g} {self.unit}.")


@dataclass(frozen=True)
class Machine:
    """The rates of one machine.

    `encode` in FLOP/s of the encoder's forward pass, `head` in FLOP/s of the head's products,
    `loss` in logits/s of the cross-entropy at label resolution, `read` and `write` in bytes/s of
    the disk that holds the store.
    """

    name: str
    encode: Rate
    head: Rate
    loss: Rate
    read: Rate
    write: Rate

    def rates(self) -> dict[str, Rate]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Rate)}


# Round numbers of the right order, for want of measured ones: a desktop's cores in fp32; a data
# centre's GPU in fp32 with TF32 off for the head and bf16 for the encoder; an NVMe disk.
CPU = Machine(
    "cpu",
    encode=Rate(1e11, "FLOP/s"),
    head=Rate(1e11, "FLOP/s"),
    loss=Rate(5e8, "logits/s"),
    read=Rate(2e9, "bytes/s"),
    write=Rate(1e9, "bytes/s"),
)
GPU = Machine(
    "gpu",
    encode=Rate(2e14, "FLOP/s"),
    head=Rate(3e13, "FLOP/s"),
    loss=Rate(3e10, "logits/s"),
    read=Rate(2e9, "bytes/s"),
    write=Rate(1e9, "bytes/s"),
)


@dataclass(frozen=True)
class Workload:
    """What is to be done.

    `width`, `depth` and `patch` are the encoder's; `layers` of its blocks are kept, each vector in
    `vector_bytes` on disk; `classes` of every head; `labelled` is the share of pixels with a label.
    """

    train_images: int
    test_images: int
    test_windows: int
    crop: int
    patch: int
    width: int
    depth: int
    layers: int
    vector_bytes: int
    classes: tuple[int, ...]
    iterations: int
    batch: int
    labelled: float = 1.0

    @property
    def tokens(self) -> int:
        return (self.crop // self.patch) ** 2

    @property
    def window_bytes(self) -> int:
        """Bytes of one window's features in the store."""
        return self.tokens * self.layers * self.vector_bytes

    @property
    def encode_flops(self) -> float:
        """FLOP of one window through a ViT: 24·L·D² + 4·L²·D per block, and the embedding.

        A multiplication and an addition are two. The MLP is four times as wide as the tokens.
        """
        tokens, width = self.tokens + 1, self.width
        block = 24 * tokens * width**2 + 4 * tokens**2 * width
        return self.depth * block + 2 * self.tokens * 3 * self.patch**2 * width

    @property
    def head_flops(self) -> float:
        """FLOP of the heads' products in one iteration, forwards and for the gradient."""
        inputs = self.batch * self.tokens * self.layers * self.width
        return 4.0 * inputs * sum(self.classes)

    @property
    def logits(self) -> float:
        """Logits at label resolution in one iteration."""
        return self.batch * self.crop**2 * sum(self.classes) * self.labelled

    def encode_seconds(self, machine: Machine, windows: float) -> float:
        return windows * self.encode_flops / machine.encode.value

    def read_seconds(self, machine: Machine) -> float:
        """Reading the features of one iteration."""
        return self.batch * self.window_bytes / machine.read.value

    @property
    def epochs(self) -> float:
        """How often each training image is seen."""
        return self.iterations * self.batch / self.train_images

    def step_seconds(self, machine: Machine) -> float:
        """Computing one iteration of the heads."""
        return self.head_flops / machine.head.value + self.logits / machine.loss.value
