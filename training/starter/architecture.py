"""The parts of the starter model, built from configuration: a Stable Diffusion in miniature.

Every part is the ordinary diffusers or transformers class, so whatever loads Stable Diffusion 1.5 loads this too.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.starter.captions import known_words
from training.starter.drawings import PICTURE_SIZE

VAE_FACTOR = 8
"""A latent pixel stands for 8 x 8 picture pixels, as in the real models."""

TEXT_LENGTH = 77
"""Tokens of a prompt, start and end included, as in the real models."""

_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How wide the parts are. The defaults are the shipped model; tests build smaller ones."""

    text_width: int = 128
    text_layers: int = 2
    vae_channels: tuple[int, int, int, int] = (16, 32, 32, 64)
    unet_channels: tuple[int, int] = (64, 128)
    heads: int = 4


def build_tokenizer() -> CLIPTokenizer:
    """Build a byte-level CLIP tokenizer that knows the words of the captions and spells out all other text."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = _learn_merges(known_words())
    tokens = [*alphabet, *(letter + _WORD_END for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, _START, _END]))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer, sizes: Sizes) -> CLIPTextModel:
    """Build the text encoder with sinusoidal positions.

    Positions are trained like all weights, but start as sinusoids: "the word before me" is then the same
    direction everywhere, so a color binds to its noun at places that few captions reach.
    """
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_width,
            intermediate_size=4 * sizes.text_width,
            projection_dim=sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    embeddings = text_encoder.get_input_embeddings()
    positions = next(
        module
        for module in text_encoder.modules()
        if isinstance(module, torch.nn.Embedding) and module is not embeddings
    )
    with torch.no_grad():
        # As strong as the word embeddings they are added to: a sine's power is half its squared amplitude.
        positions.weight.copy_(_sinusoids(TEXT_LENGTH, sizes.text_width) * embeddings.weight.std() * 2**0.5)
    return text_encoder


def build_vae(sizes: Sizes) -> AutoencoderKL:
    """Build the autoencoder: (3, 64, 64) pictures from -1 to 1 <-> (4, 8, 8) latents."""
    return AutoencoderKL(
        sample_size=PICTURE_SIZE,
        latent_channels=4,
        block_out_channels=sizes.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * len(sizes.vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(sizes.vae_channels),
        layers_per_block=1,
        norm_num_groups=8,
    )


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Build the denoiser: (4, 8, 8) latents, with cross-attention to the text where they are 4 x 4."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // VAE_FACTOR,
        in_channels=4,
        out_channels=4,
        block_out_channels=sizes.unet_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=sizes.text_width,
        # diffusers takes the number of heads under this name.
        attention_head_dim=sizes.heads,
    )


def build_scheduler() -> DDIMScheduler:
    """Build the noise schedule of Stable Diffusion, for a model that predicts v."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_pipeline(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, vae: AutoencoderKL, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """Put the parts together; there is nothing for a safety checker to find in colored shapes."""
    return StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sinusoids(length: int, width: int) -> torch.Tensor:
    """Return the position table (length, width) of "Attention Is All You Need", frequencies 1 to 1/1000."""
    frequency = 1000.0 ** -torch.linspace(0, 1, width // 2)
    angle = torch.arange(length)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges until each word is one token: always the commonest pair, first in order if tied."""
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    spellings = [list(byte_level.pre_tokenize_str(word)[0][0]) for word in words]
    for spelling in spellings:
        spelling[-1] += _WORD_END
    merges = []
    while pairs := Counter(pair for s in spellings for pair in pairwise(s)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for spelling in spellings:
            for index in range(len(spelling) - 1, 0, -1):
                # Right to left, so that a deletion moves no pair that is still to be looked at.
                if tuple(spelling[index - 1 : index + 1]) == best:
                    spelling[index - 1 : index + 1] = ["".join(best)]
    return merges
