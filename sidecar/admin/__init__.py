"""What operators ask of the process: health, metrics, redactions."""
