"""Pictures from base models and adapters."""
