"""The life of pull requests: what is due is proposed, kept up to date, and cleared away when it is over."""
