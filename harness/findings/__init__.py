"""What the protocol's runs show, from their archives to the sentences of README and FINDINGS."""
