"""What files of weights say about themselves: read from their headers and configurations, never by loading them.

Knows no Django and no deep-learning library, so that the web process and the child programs may use it alike.
"""

from training.weights.adapters import AdapterFacts, recognise_adapter
from training.weights.families import Family
from training.weights.fitting import Layers, layers_of_model, misfit
from training.weights.header import DamagedWeights, Header, Tensor, WeightsRefused, read_header
from training.weights.layouts import Layer, Layout
from training.weights.models import ModelFacts, recognise_model

__all__ = [
    "AdapterFacts",
    "DamagedWeights",
    "Family",
    "Header",
    "Layer",
    "Layers",
    "Layout",
    "ModelFacts",
    "Tensor",
    "WeightsRefused",
    "layers_of_model",
    "misfit",
    "read_header",
    "recognise_adapter",
    "recognise_model",
]
