"""CAE: context autoencoder (CAE, commit d725971)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pa.data.images import Transform
from pa.errors import UsageError
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.family import ENCODER_KEYS, Family, Request, one_network
from pa.extract.encoders.positions import AbsolutePositions, bicubic_to_size
from pa.extract.encoders.report import Rule
from pa.extract.encoders.vit import OFFICIAL_EPS, VitTrunk, beit_vit, read_shape

CARD = EncoderCard(
    name="cae",
    title="CAE-B/16, 1600 epochs",
    method="MIM",
    paper="Chen et al., Context autoencoder for self-supervised representation learning, IJCV 2024",
    sources=(
        CheckpointSource(
            "cae_base_1600ep.pth", note="Google Drive folder 1wwhg7nj2GQuU9uthVuQLkEEXEjx90G7g"
        ),
    ),
    transform=Transform(),
    positions=(
        "fixed sin-cos positions read from the file, resized bicubically to the new grid; "
        "square images only"
    ),
    projector="none: the regressor and decoder predict visual tokens",
    licence="Apache-2.0",
    notes=(
        "The released part-retrieval code of the paper computes LayerNorm with eps 1e-5 where CAE "
        "was trained with 1e-6: layer_norm_eps=1e-5 does the same."
    ),
    options=(("layer_norm_eps", OFFICIAL_EPS),),
)

RULES = (
    Rule(r"(?:encoder\.)?" + ENCODER_KEYS, "encoder"),
    Rule(r"pretext_neck\..*", reason="the regressor and decoder"),
    Rule(r"mask_token", reason="the mask token of the regressor"),
    Rule(r"teacher\..*", reason="the averaged copy of the encoder"),
    Rule(r"encoder_to_decoder.*", reason="the bridge to the decoder"),
)


def build(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    eps = request.options["layer_norm_eps"]
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UsageError(f"layer_norm_eps must be a number between 0 and 1; found {eps!r}.")
    shape = read_shape(CARD.name, tensors, request.num_heads, eps)
    positions = AbsolutePositions(bicubic_to_size)
    return VitTrunk(CARD.name, beit_vit(shape, tensors), shape, positions, request.layers)


FAMILY = Family(CARD, one_network(RULES), build)
