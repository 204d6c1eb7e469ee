"""What the service tells about itself: metrics, health, logs."""
