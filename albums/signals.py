"""What apps further up may listen to, so that nothing here has to know them."""

from django.dispatch import Signal

albums_merged = Signal()
"""``others`` have become part of ``album`` and are about to be deleted. Sent within the transaction, their locks held."""
