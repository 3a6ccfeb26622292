"""What learns: networks, weights, cached features, model folders."""
