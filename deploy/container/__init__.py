"""The production profile in containers: NVIDIA's Triton, PostgreSQL and Redis, watched by Prometheus and Grafana."""
