"""What the harness itself costs: overhead, throughput, and estimates of studies."""
