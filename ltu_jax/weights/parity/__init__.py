"""Our numbers beside those of another implementation: `certificate.certify(weights)`."""
