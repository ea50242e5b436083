"""What answers cost: meters that count joules, and whose joules they were."""
