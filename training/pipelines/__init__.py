"""What generation and training share of diffusers: devices, models, adapters, schedulers.

It knows nothing of Django, for the child programs are made of it. Where a module says so, it needs no torch either.
"""
