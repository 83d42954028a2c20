"""The use cases: what a user can do with domains. The only place that composes readers and doers."""
