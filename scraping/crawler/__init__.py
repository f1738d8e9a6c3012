"""The crawler: a program that collects the pictures of one job into one folder. Knows neither Django nor the queue.

By hand: ``python -m scraping.crawler FOLDER``, where ``FOLDER`` holds a ``crawl.json``: see :mod:`scraping.crawler.assignment`.
"""
