"""What the shop keeps beside events: catalogue, users, placement rules."""
