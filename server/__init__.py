"""The gateway: hydrate ▶ infer ▶ select, behind gRPC."""
