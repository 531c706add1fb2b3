"""A new data key for one person, after the old one may have leaked: everything sealed anew."""
