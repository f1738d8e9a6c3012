"""Doing things in threads: one beside the test, or the same in many at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

from django.db import connections


def beside(action):
    """Begin to do something in a thread with a database connection of its own; return the thread."""

    def work():
        try:
            action()
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def at_once(action, items):
    """Call the action with each item at the same moment, each in a thread with a database connection of its own."""
    items = list(items)
    barrier = threading.Barrier(len(items))

    def run(item):
        barrier.wait()
        try:
            return action(item)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(run, items))
