"""The gRPC services; generated protobuf types stop in this package."""
