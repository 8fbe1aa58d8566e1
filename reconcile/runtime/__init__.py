"""What makes reconcilers run: queue, workers, steps, outcomes, clock, manager, server. No Git, no HTTP client."""
