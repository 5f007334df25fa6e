"""A laboratory's dataset, backbone and search for the harness."""
