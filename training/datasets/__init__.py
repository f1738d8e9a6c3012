"""Data sets as files: which pictures, in which size, and what each is there for. Knows neither Django nor torch."""
