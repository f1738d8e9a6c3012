"""Pages for people: albums, their pictures, and one picture with all that is known of it."""
