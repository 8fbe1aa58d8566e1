"""The load tester: gates, tasks and a load generator behind the API that Canaries' webhooks call."""
