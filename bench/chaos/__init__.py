"""Everything of an instance is killed, stopped, frozen and filled up at random, and afterwards nothing may be lost or doubled."""
