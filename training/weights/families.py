"""Families of networks, and what tells one from another."""

from enum import StrEnum


class Family(StrEnum):
    """Which family of networks weights belong to."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"
    OTHER = "other"


CONTEXT_WIDTHS = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}
"""How wide what a U-Net is told of the prompt is, as its cross-attention layers (``attn2``) take it in.

The widths are those of the text encoders: CLIP ViT-L; OpenCLIP ViT-H; ViT-L and ViT-bigG side by side.
"""

PIPELINES = {
    Family.SD1: "StableDiffusionPipeline",
    Family.SD2: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
    Family.SD3: "StableDiffusion3Pipeline",
    Family.FLUX: "FluxPipeline",
}
"""The class of diffusers that makes pictures of text with a family."""

DEFAULT_SIDES = {
    Family.SD1: 512,
    Family.SD2: 768,
    Family.SDXL: 1024,
    Family.SD3: 1024,
    Family.FLUX: 1024,
}
"""Pixels of a side that a family was trained on, where no configuration says it."""

_SAID = (
    ("flux", Family.FLUX),
    ("stable-diffusion-3", Family.SD3),
    ("sd3", Family.SD3),
    ("stable-diffusion-xl", Family.SDXL),
    ("sdxl", Family.SDXL),
    ("stable-diffusion-v2", Family.SD2),
    ("sd_v2", Family.SD2),
    ("sd_2", Family.SD2),
    ("stable-diffusion-v1", Family.SD1),
    ("sd_v1", Family.SD1),
    ("sd_1", Family.SD1),
    ("other/", Family.OTHER),
)
"""How trainers, ours among them, begin the name of a family, in ``modelspec.architecture`` and ``ss_base_model_version``."""


def family_of_width(width: int) -> Family:
    """Return the family whose U-Net is told of the prompt in vectors so wide."""
    return CONTEXT_WIDTHS.get(width, Family.OTHER)


def family_said(metadata: dict[str, str]) -> Family | None:
    """Return the family that the metadata of a file names."""
    for name in ("modelspec.architecture", "ss_base_model_version"):
        said = metadata.get(name, "").strip().lower()
        for beginning, family in _SAID:
            if said.startswith(beginning):
                return family
    return None
