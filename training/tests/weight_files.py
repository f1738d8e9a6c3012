"""Real adapters of real and tiny models, made by peft, in all layouts."""

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from training.tests.weight_headers import write_header

# Every Linear and 1 x 1 convolution below Transformer2DModel, as sd-scripts chooses them.
OF_TRANSFORMERS = r".*attentions.*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)$"
OF_TEXT_ENCODERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def tiny_unet(width=32):
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=8,
    )


def tiny_text_encoder(width=32):
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=514,
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )


def sd15_parts():
    """Return the U-Net and text encoder of Stable Diffusion 1.5, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        return {"unet": unet, "text_encoder": CLIPTextModel(_clip(768, 12))}


def sdxl_parts():
    """Return the U-Net and text encoders of Stable Diffusion XL, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        return {
            "unet": unet,
            "text_encoder": CLIPTextModel(_clip(768, 12)),
            "text_encoder_2": CLIPTextModelWithProjection(_clip(1280, 32)),
        }


def add_adapter(parts, *, rank=4, alpha=2, unet_targets=OF_TRANSFORMERS):
    """Add a LoRA to the parts of a model, with factors that change something; return their tensors by peft's names."""
    states = {}
    for name, part in parts.items():
        targets = unet_targets if name == "unet" else OF_TEXT_ENCODERS
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)
        inject_adapter_in_model(config, part)  # as diffusers does: transformers asks for a later peft
        part.peft_config = {"default": config}
        states[name] = get_peft_model_state_dict(part)
    return states


def kohya(states, *, alpha=2.0, is_sdxl=False):
    """Return the tensors of an adapter in Kohya's layout, the real alpha among them."""
    prefixes = {
        "unet": "lora_unet",
        "text_encoder": "lora_te1" if is_sdxl else "lora_te",
        "text_encoder_2": "lora_te2",
    }
    tensors = {}
    for part, state in states.items():
        for name, tensor in state.items():
            layer, kind = re.fullmatch(r"(.+)\.lora_(A|B)\.weight", name).groups()
            if part != "unet" and not layer.startswith("text_model"):
                layer = f"text_model.{layer}"
            key = f"{prefixes[part]}_{layer.replace('.', '_')}"
            tensors[f"{key}.lora_{'down' if kind == 'A' else 'up'}.weight"] = tensor
            tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    return tensors


def diffusers(states):
    return {f"{part}.{name}": tensor for part, state in states.items() for name, tensor in state.items()}


def peft(states):
    """Return what peft itself saves of a U-Net."""
    return {f"base_model.model.{name}": tensor for name, tensor in states["unet"].items()}


def write_tensors(path: Path, tensors, metadata=None) -> Path:
    """Write tensors; of those without weights only the header and zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if any(tensor.is_meta for tensor in tensors.values()):
        values = {name: float(tensor) for name, tensor in tensors.items() if not tensor.is_meta}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return write_header(path, shapes, metadata, dtype="F32", values=values)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def save_with_diffusers(folder: Path, parts, states) -> Path:
    """Save an adapter by diffusers itself, with the metadata that it writes."""
    pipeline = StableDiffusionXLPipeline if "text_encoder_2" in parts else StableDiffusionPipeline
    options = {
        f"{name}_lora_adapter_metadata": part.peft_config["default"].to_dict() for name, part in parts.items()
    }
    layers = {f"{name}_lora_layers": state for name, state in states.items()}
    pipeline.save_lora_weights(folder, **layers, **options)
    return folder / "pytorch_lora_weights.safetensors"


def _clip(width, layers):
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
    )
