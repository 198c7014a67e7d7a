"""The log's files: where entries are before the database has them, and while it takes none."""
