"""Where scans come from: manifest, readers, datasets, phantom, audit, split, store."""
