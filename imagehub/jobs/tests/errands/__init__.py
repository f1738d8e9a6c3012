"""A kind of job for tests of the job system: it does what its row says and leaves one effect."""
