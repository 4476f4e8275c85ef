"""Who may call: where a gateway listens, TLS, API keys, their scopes and their limits."""
