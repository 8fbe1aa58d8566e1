"""Data only: the objects of the Kubernetes-style API as pydantic models. No I/O, no asyncio."""
