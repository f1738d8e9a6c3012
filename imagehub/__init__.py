"""ImageHub: keep, collect, train on and generate pictures. This package is the platform below the apps."""

__version__ = "0.1.0"
