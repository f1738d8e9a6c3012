"""Collecting pictures from the web into albums."""
