"""A trainer of somebody else's, such as sd-scripts, in place of ours: a program that starts it and speaks for it.

``python -m training.external FOLDER``: the folder is that of any run, with an ``external.json`` that says what to start.
Knows neither Django nor torch.
"""
