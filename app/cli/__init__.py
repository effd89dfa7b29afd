"""The `loraworks` command."""
