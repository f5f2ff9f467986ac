"""What the benchmarks of images share: stages that are run once and kept, and the JSON file of their results."""
