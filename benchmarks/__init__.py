"""Speed, accuracy, memory and start-up of withlogits, measured beside its peers: `python -m benchmarks`."""
