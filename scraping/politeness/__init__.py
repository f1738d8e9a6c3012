"""When a host may be asked for something, and whether. Knows neither Django nor Scrapy.

The crawler opens no database: it asks the worker that started it before every request, and tells it how each went.
``Gatekeeper`` is the worker's side of that talk; what it remembers lies behind ``Store``, so that all workers can share it.
"""
