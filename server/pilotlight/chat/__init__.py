"""Messages to text: knows nothing of HTTP or workers."""
