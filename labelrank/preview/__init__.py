"""What pages show of files, looked at in processes apart that may use only so much memory and time."""
