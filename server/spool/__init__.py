"""The log's local spool: where entries wait on disk while the database does not take them."""
