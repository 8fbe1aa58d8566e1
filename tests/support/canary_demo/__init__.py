"""The demonstration of canaries, `make canary-demo`: one new revision is promoted, another one is taken back."""
