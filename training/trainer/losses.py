"""How far a prediction is off, and how much that counts."""

import torch


def errors(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each picture of a batch, in float32."""
    return (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))


def min_snr_weights(
    timesteps: torch.Tensor, alphas_cumprod: torch.Tensor, *, gamma: float, prediction: str
) -> torch.Tensor:
    """Return how much the error at each step of noise counts, so that steps with little noise count no more than others.

    T. Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023: the error of the picture counts
    ``min(SNR, gamma)``, which makes ``min(SNR, gamma) / SNR`` for the error of the noise (``epsilon``) and
    ``min(SNR, gamma) / (SNR + 1)`` for that of the velocity (``v_prediction``).
    """
    kept = alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    snr = kept / (1 - kept)
    if prediction == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    # The same as min(SNR, gamma) / SNR, and 1 where there is nothing but noise and the SNR is 0.
    return gamma / snr.clamp(min=gamma)
