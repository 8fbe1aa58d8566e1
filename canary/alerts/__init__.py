"""Alerts: what chats are told of the runs of Canaries, in which form, and who is told what."""
