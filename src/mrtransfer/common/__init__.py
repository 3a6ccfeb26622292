"""What every room uses: errors, registries, files, progress."""
