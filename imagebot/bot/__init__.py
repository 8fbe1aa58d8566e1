"""ImageUpdateAutomation: which branch, which edits, which message; commit and push."""
