"""Small programs that misbehave in one way each. ``misbehave.py`` holds those of a few lines."""
