"""Base models, the adapters trained on them, and the starter model every machine has."""
