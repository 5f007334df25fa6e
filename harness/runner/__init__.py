"""From a request to a spec, and from a spec to a record."""
