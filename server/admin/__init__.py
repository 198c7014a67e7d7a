"""Routes of the admin API."""
