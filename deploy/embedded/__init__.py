"""The embedded profile: real Triton, gateway and stream worker as supervised processes of one machine."""
