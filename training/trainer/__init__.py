"""The trainer: a program that trains one LoRA adapter in one folder. Knows neither Django nor the queue.

By hand: ``python -m training.trainer FOLDER``, where ``FOLDER`` holds a ``run.json``: see :mod:`training.trainer.assignment`.
"""
