"""Trains Telltale's models: feature files enter, versions of a model repository leave. Never serves."""
