"""What an operator sees: metrics, traces, and one line for each request."""
