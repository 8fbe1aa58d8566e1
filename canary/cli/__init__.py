"""The commands of canaries: `imagebot canary`."""
