"""The warm engine: a child program that loads a diffusers pipeline once and answers requests.

It knows nothing of Django. ``python -m generation.engine --help`` says how to run it by hand.
"""
