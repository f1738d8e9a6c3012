"""What ImageHub promises about speed and size, measured. See ``README.md``; nothing here is imported by the project."""
