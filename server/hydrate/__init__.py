"""Step one: what is known of the shopper at the moment of the request."""
