"""The HTTP edge: makes every httpx client, with limits, retries and guards."""
