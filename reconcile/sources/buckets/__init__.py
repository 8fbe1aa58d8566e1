"""Clients for buckets: S3, Google Cloud Storage and Azure Blob Storage by their documented HTTP interfaces."""
