"""Is this what was signed? The verifier knows files, signatures and tensors, and no web site."""
