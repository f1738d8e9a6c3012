"""Programs that supervision is tested with."""
